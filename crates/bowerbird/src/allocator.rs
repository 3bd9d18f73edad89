//! The C library's allocator, told to give back what is not in use.
//!
//! Buffers of megabytes come and go on all threads. As it comes, glibc keeps what was freed in as many arenas as there are
//! threads, which takes a third more memory at the peak than the settings promise. With large blocks mapped one by one and
//! two arenas it stays far below; other allocators were measured and keep more. It takes this from the environment alone,
//! and only when a process starts.

use std::{env, os::unix::process::CommandExt as _, process::Command};

/// What is set, unless the operator has set it.
const SETTINGS: [(&str, &str); 3] =
    [("MALLOC_MMAP_THRESHOLD_", "262144"), ("MALLOC_TRIM_THRESHOLD_", "262144"), ("MALLOC_ARENA_MAX", "2")];

/// Start this program again, in the same process, with the allocator's settings. Returns if they are there, or if that
/// cannot be done: then more memory is taken, and nothing else is different. Before there are threads.
pub(crate) fn settle() {
    let missing: Vec<_> = SETTINGS.into_iter().filter(|(name, _)| env::var_os(name).is_none()).collect();
    if missing.is_empty() || !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return;
    }
    let (Ok(program), mut arguments) = (env::current_exe(), env::args_os()) else { return };
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    let _failed = again.args(arguments).envs(missing).exec();
}
