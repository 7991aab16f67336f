"""A server that speaks the Hub's API, on this machine, with every fault that a network has.

``HubServer`` serves folders as repositories: model info, tree, resolve with a redirect to another origin, ranges,
ETags, tokens; with latency and a bandwidth that all connections share. ``Fault`` says what goes wrong, where and how
often.
"""

from .faults import Fault
from .repos import Repos
from .server import HubServer, Request

__all__ = ["Fault", "HubServer", "Repos", "Request"]
