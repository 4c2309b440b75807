//! Mail policy as stages: context in, verdict out.
