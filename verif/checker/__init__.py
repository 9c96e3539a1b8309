"""An independent checker of proofs: numpy and the standard library only, none of the engine's code.

`check(proof, model, property)` reads all three by itself and either returns what was shown or raises `Refused`. What it
trusts is listed in docs/trust.md.
"""

from verif.checker.errors import Refused as Refused
from verif.checker.proof import Shown as Shown, check as check
