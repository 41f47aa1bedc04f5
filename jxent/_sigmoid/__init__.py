"""Binary and multi-label losses: formulas in log σ(z) and log σ(−z)."""

from .arguments import (
    check as check,
    loss as loss,
)
from .asymmetric import asymmetric_loss as asymmetric_loss
from .formulas import (
    asymmetric_of_logits as asymmetric_of_logits,
    binary as binary,
    binary_focal as binary_focal,
    binary_of_logits as binary_of_logits,
    focal_of_logits as focal_of_logits,
)
from .losses import (
    sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy,
    sigmoid_focal_loss as sigmoid_focal_loss,
)
