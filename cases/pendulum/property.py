"""Does the learnt energy fall along every motion of the controlled pendulum, outside a small ball around the top?"""

from __future__ import annotations

from pathlib import Path

from verif import Condition, Expression, function, grad, op, variables, vector

FOLDER = Path(__file__).parent
RANGE, BALL = 0.5, 0.05  # of the angle (rad) and the rate (rad/s); radius of the ball


def energy(x: Expression) -> Expression:
    """V = |x|^2 / 10 + |g(x) - g(0)|^2: above 0 but at the top."""
    g = function(FOLDER / "energy.onnx")
    step = g(x) - g(0 * x)
    return 0.1 * (x @ x) + step @ step


def motion(x: Expression) -> Expression:
    """The rates of (angle, rate): an inverted pendulum whose torque the controller gives."""
    angle, rate = x
    return vector(rate, op("sin", angle) + function(FOLDER / "controller.onnx")(x))


def energy_falls() -> Condition:
    """grad V . f(x) < 0 outside the ball. Holds."""
    return _falls(RANGE)


def energy_falls_far_out() -> Condition:
    """The same from any angle of up to 3 rad. Is violated: the torque is too weak there."""
    return _falls(3.0)


def _falls(most: float) -> Condition:
    (x,) = variables(x=([-most, -most], [most, most]))
    return (x @ x >= BALL**2).implies(grad(energy(x), x) @ motion(x) < 0)
