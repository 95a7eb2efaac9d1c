"""The one address: who may come in, which database is meant, and how its compute is woken.

What decides is pure (generators that say what they need, state machines that say what is to be
done); what waits drives the native relay and asks the control plane.
"""
