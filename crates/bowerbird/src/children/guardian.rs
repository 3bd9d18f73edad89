//! One child and the task that watches it: started, seen to answer, restarted when it dies, stopped in good order.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    future::Future,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    process::Command,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Keeper, keeper::Running};
use crate::failure::Failure;

/// It is given up when it died this often ...
const MAX_DEATHS: usize = 8;
/// ... within this time.
const DEATHS_WITHIN: Duration = Duration::from_mins(2);
/// How long a start may take, crash recovery included.
const START: Duration = Duration::from_mins(5);
/// How long an orderly stop may take before the child is killed.
const STOP: Duration = Duration::from_secs(30);
/// A log file that is larger at a start is put aside first.
const LARGE_LOG_BYTES: u64 = 16 << 20;

/// How a child is run.
pub(crate) struct Recipe {
    /// For people: `PostgreSQL`, `nats-server`.
    pub(crate) name: &'static str,
    /// Makes the command, without its output.
    pub(crate) command: Box<dyn Fn() -> Command + Send + Sync>,
    /// Where its standard output and error go.
    pub(crate) log: PathBuf,
    /// Asks it to end in good order.
    pub(crate) stop: Signal,
    /// Resolves to true when it answers as it should.
    pub(crate) answers: Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>,
}

/// Watches one child until it is stopped.
#[derive(Debug)]
pub(crate) struct Guardian {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Guardian {
    /// Start the child, wait until it answers, and watch it from then on. When it is given up, `gave_up` is called once.
    pub(crate) async fn start(
        recipe: Recipe,
        keeper: Keeper,
        tasks: &bowerbird_lifecycle::Tasks,
        gave_up: impl FnOnce(Failure) + Send + 'static,
    ) -> Result<Self, Failure> {
        put_aside(&recipe.log);
        let stop = CancellationToken::new();
        let recipe = Arc::new(recipe);
        let child = launch(&recipe, &keeper, &stop).await?;
        let task = tasks.spawn_detached(watch(recipe, keeper, child, stop.clone(), gave_up));
        Ok(Guardian { stop, task })
    }

    /// Stop the child in good order and wait for its end, which is bounded.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // The task ends by itself: every wait in it has an end.
        let _ = self.task.await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a pause before a restart or the next look")]
async fn watch(
    recipe: Arc<Recipe>,
    keeper: Keeper,
    first: Running,
    stop: CancellationToken,
    gave_up: impl FnOnce(Failure) + Send + 'static,
) {
    let mut child = first;
    let mut deaths = VecDeque::new();
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => {
                end(&recipe, &mut child).await;
                return;
            }
            ended = child.wait() => ended,
        };
        warn!(child = recipe.name, how = %how(&ended), "it died and is started again");
        child = loop {
            let now = Instant::now();
            deaths.push_back(now);
            deaths.retain(|at| now.duration_since(*at) < DEATHS_WITHIN);
            if deaths.len() > MAX_DEATHS {
                gave_up(Failure::GaveUp(format!(
                    "{} died {} times within {} s, so Bowerbird gave up; {}",
                    recipe.name,
                    deaths.len(),
                    DEATHS_WITHIN.as_secs(),
                    last_words(&recipe.log)
                )));
                return;
            }
            // 50 ms, doubled with each death in the window, at most 5 s.
            let pause = Duration::from_millis(50 << deaths.len().min(8)).min(Duration::from_secs(5)) / 2;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            match launch(&recipe, &keeper, &stop).await {
                Ok(child) => break child,
                Err(_) if stop.is_cancelled() => return,
                Err(error) => warn!(child = recipe.name, "{error}"),
            }
        };
        info!(child = recipe.name, "it runs again");
    }
}

/// Start it and wait until it answers.
#[expect(clippy::disallowed_methods, reason = "a pause before a restart or the next look")]
async fn launch(recipe: &Recipe, keeper: &Keeper, stop: &CancellationToken) -> Result<Running, Failure> {
    let refused = |error: io::Error| Failure::Unavailable(format!("{} cannot be started: {error}", recipe.name));
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&recipe.log).map_err(refused)?;
    let mut command = (recipe.command)();
    command.stdout(log.try_clone().map_err(refused)?).stderr(log);
    let mut child = keeper.spawn(command, recipe.stop).await.map_err(refused)?;
    let deadline = Instant::now() + START;
    loop {
        if timeout(Duration::from_secs(5), (recipe.answers)()).await.unwrap_or(false) {
            return Ok(child);
        }
        let ended = tokio::select! {
            ended = child.wait() => Some(ended),
            () = stop.cancelled() => {
                end(recipe, &mut child).await;
                return Err(Failure::Unavailable(format!("{} was stopped while it started", recipe.name)));
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => None,
        };
        if let Some(ended) = ended {
            let said = last_words(&recipe.log);
            return Err(Failure::Unavailable(format!("{} did not start ({}); {said}", recipe.name, how(&ended))));
        }
        if Instant::now() > deadline {
            end(recipe, &mut child).await;
            let said = last_words(&recipe.log);
            return Err(Failure::Unavailable(format!("{} did not answer within {} s; {said}", recipe.name, START.as_secs())));
        }
    }
}

async fn end(recipe: &Recipe, child: &mut Running) {
    child.ask_to_end();
    if timeout(STOP, child.wait()).await.is_err() {
        warn!(child = recipe.name, "it did not stop within {} s and is killed", STOP.as_secs());
        child.kill().await;
    }
}

fn how(ended: &io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// A log that has grown large over many runs is kept once, under another name.
fn put_aside(log: &Path) {
    if fs::metadata(log).is_ok_and(|metadata| metadata.len() > LARGE_LOG_BYTES) {
        let _ = fs::rename(log, log.with_extension("log.old"));
    }
}

/// What a child last wrote, as the end of a sentence. A full disk is told as what it is.
fn last_words(log: &Path) -> String {
    let tail = tail(log).unwrap_or_default();
    if tail.contains("No space left on device") {
        return format!("the disk that holds {} is full: free some space and start again", log.display());
    }
    let lines: Vec<&str> = tail.lines().rev().filter(|line| !line.trim().is_empty()).take(4).collect();
    let shown: Vec<&str> = lines.into_iter().rev().collect();
    format!("its log {} ends with: {}", log.display(), shown.join(" | "))
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(2048)))?;
    let mut bytes = Vec::new();
    file.take(2048).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
