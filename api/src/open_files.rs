//! File descriptors for as many connections as are granted.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside clients' connections: the pool, the writers, listeners, files.
const OTHERS: u64 = 256;

/// Raises this process's limit of open files as far as `connections` need, and warns where the system does not allow it.
///
/// The usual soft limit of 1,024 is for programs that call `select`; those that do not may raise it up to the hard limit
/// (systemd.exec(5), "LimitNOFILE").
pub fn allow(connections: u32) {
    let needed = u64::from(connections) + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let possible = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = Rlimit {
        current: Some(possible),
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    } else if possible < needed {
        tracing::warn!(
            possible,
            needed,
            "the system allows fewer open files than API_MAX_CONNECTIONS needs; raise its hard limit (LimitNOFILE)"
        );
    }
}
