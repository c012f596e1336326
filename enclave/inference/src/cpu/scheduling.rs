//! Whether what computes may be in the way of others.
#![expect(unsafe_code, reason = "a system call")]

/// Lets this thread, and those that it starts from now on, have processors only while no other thread wants them (sched(7), SCHED_IDLE):
/// what others do on time, they do on time while a model computes. Where other programs are busy too, models then compute slowly. There
/// is no way back.
///
/// # Errors
/// What the kernel says, if it does not let threads do so.
pub fn yield_processors() -> std::io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the structure and keeps nothing of it; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel tells it: proc_pid_stat(5), field 41.
    fn class() -> u32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn threads_that_are_started_then_yield_too() {
        let before = class();
        let (here, started) = std::thread::spawn(|| {
            yield_processors().unwrap();
            (class(), std::thread::spawn(class).join().unwrap())
        })
        .join()
        .unwrap();
        let idle = libc::SCHED_IDLE.unsigned_abs();
        assert_eq!((here, started, class()), (idle, idle, before));
        assert_ne!(before, idle);
    }
}
