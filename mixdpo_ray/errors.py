"""The errors a person can act on. Every message says where, what is wrong with its value, and what to do.

MixDPOError
├── RecipeError            the recipe or the command line cannot work            exit status 2
├── DataError              the source cannot be turned into a prepared table
│   ├── FormatError        the rows do not have the columns of the format
│   ├── QuarantineError    more rows were refused than data.source.max_quarantined_fraction allows
│   └── TooFewPairsError   nothing was left, or less than one global batch
├── PreparedTableError     a prepared or reference table is missing, damaged or does not fit
├── EvaluationError        a benchmark's files do not fit, or too many verdicts are missing
├── CurriculumError        rows arrived that the plan did not ask for
├── ModelError             the model cannot be trained or exported as asked
├── CheckpointError        no usable checkpoint, or one of another run
├── NonFiniteError         a loss or a gradient is not finite; nothing was updated
├── RunConflictError       the run's name is taken by another recipe or another driver
├── ResourceError          the cluster cannot give what was asked for
├── WorkersError           workers died more often than cluster.max_failures allows; starting again may help
├── StoppedError           the time of train.stop_after is over; the same command continues   exit status 3
├── EndpointError          a server refuses to answer, its key is not there, or the budget for it is spent
└── StorageError           a path cannot be written or read, or the disk is full
"""


class MixDPOError(Exception):
    """Root of the tree. Its message is one line and is all that a person sees."""


class RecipeError(MixDPOError):
    pass


class DataError(MixDPOError):
    pass


class FormatError(DataError):
    pass


class QuarantineError(DataError):
    pass


class TooFewPairsError(DataError):
    pass


class PreparedTableError(MixDPOError):
    pass


class EvaluationError(MixDPOError):
    pass


class CurriculumError(MixDPOError):
    pass


class ModelError(MixDPOError):
    pass


class CheckpointError(MixDPOError):
    pass


class NonFiniteError(MixDPOError):
    pass


class RunConflictError(MixDPOError):
    pass


class ResourceError(MixDPOError):
    pass


class StorageError(MixDPOError):
    pass


class WorkersError(MixDPOError):
    pass


class EndpointError(MixDPOError):
    pass


class StoppedError(MixDPOError):
    pass
