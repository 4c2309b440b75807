//! Every test that looks at the tree or at the built program from outside; one binary, so that it links once.

mod end_to_end;
mod harness;
mod interop;
mod tidy;
mod transcripts;
