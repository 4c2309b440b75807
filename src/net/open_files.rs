//! How many files, sockets among them, this process may have open.
//!
//! Apart because it is the process's own and no connection's. Service managers give a low soft limit for the sake of programs
//! that use `select`, and leave it to the others to raise it.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit before and now; `None`: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    pub from: Option<u64>,
    pub to: Option<u64>,
}

/// Raises the soft limit as far as the hard one allows.
pub fn raise() -> io::Result<Raised> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(Raised { from: current, to: maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise().expect("a process may always do that");
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!((raised.to, current), (maximum, maximum));
        assert_eq!(raise().expect("again").from, maximum, "a second time changes nothing");
    }
}
