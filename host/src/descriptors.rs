//! File descriptors: each connection needs two, one per side.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::output;

/// What the program needs beside connections: listeners, pipes, the runtime, scrapers.
const OTHERS: u64 = 64;

/// Makes room for this many connections, as far as the system lets us. Common defaults allow a process 1024 descriptors and let it
/// raise that by itself. If there is not enough room, connections fail before the limit is reached, so that is said on stderr.
pub fn make_room_for(connections: usize) {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(OTHERS);
    // An unreadable limit is no reason not to serve: running out is handled where it happens.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let raised = needed.min(hard).max(soft);
    let allowed = match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        Ok(()) => raised,
        Err(_) => soft,
    };
    if allowed < needed {
        output::note(&format_args!(
            "warning: the system allows {allowed} open files, and {connections} connections need {needed}; \
             raise the limit or lower --max-connections"
        ));
    }
}
