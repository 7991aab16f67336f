"""Models that lie elsewhere: on the Hub, on a web server, in object storage. Only the bytes that are read are fetched.

``address`` reads references; ``hub``, ``web`` and ``store`` are the places; ``transfer`` gets one range whatever goes
wrong on the way; ``file`` decides which ranges; ``cache`` keeps them; ``workers`` bounds how many are under way.
"""
