//! What a killed `up` may have left running: found by name and working folder, waited for, then ended.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Processes named `name` whose working folder is `folder`. Each child of ours is started in a folder that nobody else uses.
fn find(name: &str, folder: &Path) -> Vec<Pid> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        let process = Path::new("/proc").join(id.to_string());
        let named = fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        named && fs::read_link(process.join("cwd")).is_ok_and(|at| at == folder)
    })
    .filter_map(Pid::from_raw)
    .collect()
}

/// Wait until none is left: they were told by the kernel to end when their parent died. After `patience` they get `signal`,
/// and after as long again SIGKILL. False if even that did not help.
#[expect(clippy::disallowed_methods, reason = "a pause before the next look")]
pub(crate) async fn end(name: &str, folder: &Path, signal: Signal, patience: Duration) -> bool {
    let started = Instant::now();
    let mut asked = false;
    loop {
        let left = find(name, folder);
        if left.is_empty() {
            return true;
        }
        let waited = started.elapsed();
        if waited > patience * 3 {
            return false;
        }
        if waited > patience * 2 {
            signal_all(&left, Signal::KILL);
        } else if waited > patience && !asked {
            tracing::info!(program = name, processes = left.len(), "ending what the last run left behind");
            signal_all(&left, signal);
            asked = true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        // It may have ended meanwhile, which is what is wanted.
        let _ = kill_process(*process, signal);
    }
}
