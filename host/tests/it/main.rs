//! The real `cocoon-host` between real sockets and processes.
//!
//! One test program, so that it links once. No test depends on how long anything takes: what must happen is waited for, generously.

#[cfg(test)]
mod doctor;
#[cfg(test)]
mod endorsements;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod run;
#[cfg(test)]
mod support;
#[cfg(test)]
mod systemd;
#[cfg(test)]
mod vm;
