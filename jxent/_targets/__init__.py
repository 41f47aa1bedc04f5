"""What rows are compared with: one kind a file, beside the recipe that labels share."""

from .binary import (
    BinaryIds as BinaryIds,
    BinaryLabels as BinaryLabels,
)
from .distribution import Distribution as Distribution
from .given import (
    AskedAt as AskedAt,
    BinaryAnswers as BinaryAnswers,
    ClassLabels as ClassLabels,
    Given as Given,
    OtherSoftmax as OtherSoftmax,
)
from .ids import Ids as Ids
from .labels import (
    lse_squared as lse_squared,
    smoothing_share as smoothing_share,
    statistics_of as statistics_of,
)
from .several_ids import (
    AskedIds as AskedIds,
    SeveralIds as SeveralIds,
)
from .softmax import (
    Softmax as Softmax,
    jensen_shannon_formula as jensen_shannon_formula,
)
from .target import (
    Like as Like,
    Losses as Losses,
    NoTarget as NoTarget,
    Target as Target,
)
