"""Meta-World for iFlyBot-VLA: scripted demonstrations, questions about scenes, closed-loop evaluation (MuJoCo, no network)."""
