"""What models do: states, logits and answers on probe texts, of local models and of models behind an API.

Behaviour never says whether weights were copied. Distillation and shared data make strangers alike, and a copy that
was trained on may answer otherwise. So nothing here enters the verdict; it stands on an axis of its own.
"""
