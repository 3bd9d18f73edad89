//! The supervisor at work: order, restarts, giving up.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::*;

/// Writes down what happens to it.
struct Witness {
    name: &'static str,
    journal: Arc<Mutex<Vec<String>>>,
    /// `pre_start` fails until this many were tried.
    failing_starts: Arc<AtomicUsize>,
}

enum Order {
    Fail,
    Panic,
    End,
    Hang,
}

impl Actor for Witness {
    type Msg = Order;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Order>, (): ()) -> Result<(), ActorProcessingErr> {
        let left = self.failing_starts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err("cannot start yet".into());
        }
        self.journal.lock().unwrap().push(format!("{} started", self.name));
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Order>, order: Order, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Fail => Err("told to fail".into()),
            Order::Panic => panic!("told to panic"),
            Order::End => {
                myself.stop(None);
                Ok(())
            }
            Order::Hang => {
                std::future::pending::<()>().await;
                Ok(())
            }
        }
    }

    async fn post_stop(&self, _: ActorRef<Order>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.journal.lock().unwrap().push(format!("{} stopped", self.name));
        Ok(())
    }
}

struct Stage {
    journal: Arc<Mutex<Vec<String>>>,
    failing_starts: Arc<AtomicUsize>,
}

impl Stage {
    fn new() -> Self {
        Stage { journal: Arc::default(), failing_starts: Arc::default() }
    }

    fn witness(&self, name: &'static str, address: &Address<Order>) -> ChildSpec {
        let (journal, failing_starts) = (Arc::clone(&self.journal), Arc::clone(&self.failing_starts));
        ChildSpec::actor(name, address, move || {
            let (journal, failing_starts) = (Arc::clone(&journal), Arc::clone(&failing_starts));
            (Witness { name, journal, failing_starts }, ())
        })
    }

    fn journal(&self) -> Vec<String> {
        self.journal.lock().unwrap().clone()
    }

    async fn wait_for_lines(&self, lines: usize) -> Vec<String> {
        tokio::time::timeout(Duration::from_secs(10), async {
            while self.journal().len() < lines {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the journal grows");
        self.journal()
    }
}

fn node(root: &Root, path: &str) -> Node {
    root.tree().snapshot().into_iter().find(|node| node.path == path).expect("a node of this path")
}

#[tokio::test]
async fn children_start_in_order_and_stop_in_reverse() {
    let stage = Stage::new();
    let (one, two, three) = (Address::default(), Address::default(), Address::default());
    let branch = {
        let inner = stage.witness("two", &two);
        Supervisor::child("branch", Clock::system(), move || vec![inner.clone()])
    };
    let root =
        start("root", vec![stage.witness("one", &one), branch, stage.witness("three", &three)], Clock::system()).await.unwrap();
    assert_eq!(node(&root, "root/branch/two").state, State::Running);
    assert!(root.stop(Duration::from_secs(5)).await);
    assert_eq!(stage.journal(), ["one started", "two started", "three started", "three stopped", "two stopped", "one stopped"]);
    assert_eq!(node(&root, "root/branch/two").state, State::Stopped);
}

#[tokio::test]
async fn a_child_that_fails_panics_or_is_killed_is_restarted_behind_the_same_address() {
    let stage = Stage::new();
    let address = Address::default();
    let root = start("root", vec![stage.witness("one", &address)], Clock::system()).await.unwrap();
    for (lives, fall) in [Order::Fail, Order::Panic].into_iter().enumerate() {
        address.cast(fall).unwrap();
        stage.wait_for_lines(lives + 2).await;
    }
    address.get().unwrap().kill();
    assert_eq!(stage.wait_for_lines(4).await, ["one started"; 4]);
    let node = node(&root, "root/one");
    assert_eq!(node.restarts, 3);
    assert_eq!(node.last_failure.as_deref(), Some("it was killed"));
    assert!(root.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_failing_start_counts_as_a_failure_and_is_tried_again() {
    let stage = Stage::new();
    stage.failing_starts.store(2, Ordering::SeqCst);
    let root = start("root", vec![stage.witness("one", &Address::default())], Clock::system()).await.unwrap();
    assert_eq!(node(&root, "root/one").restarts, 2);
    assert_eq!(node(&root, "root/one").state, State::Running);

    stage.failing_starts.store(usize::MAX, Ordering::SeqCst);
    let strict = Intensity { restarts: 1, within: Duration::from_mins(1) };
    let hopeless = stage.witness("one", &Address::default()).tolerated(strict);
    let failed = start("other", vec![hopeless], Clock::system()).await;
    assert!(failed.is_err());
}

#[tokio::test]
async fn the_root_gives_up_when_restarting_does_not_help_and_stops_the_others_in_order() {
    let stage = Stage::new();
    let address = Address::default();
    let strict = Intensity { restarts: 2, within: Duration::from_mins(1) };
    let children = vec![stage.witness("bystander", &Address::default()), stage.witness("one", &address).tolerated(strict)];
    let root = start("root", children, Clock::system()).await.unwrap();
    for lives in 0..3 {
        stage.wait_for_lines(2 + lives).await;
        address.cast(Order::Fail).unwrap();
    }
    let reason = tokio::time::timeout(Duration::from_secs(10), root.failed()).await.expect("the root gives up");
    assert_eq!((reason.child.as_str(), reason.failures, reason.last.as_str()), ("root/one", 3, "told to fail"));
    assert_eq!(stage.journal().last().map(String::as_str), Some("bystander stopped"));
}

#[tokio::test]
async fn a_branch_that_gives_up_is_restarted_as_a_whole() {
    let stage = Stage::new();
    let address = Address::default();
    let branch = {
        let inner = stage.witness("inner", &address).tolerated(Intensity { restarts: 0, within: Duration::from_mins(1) });
        Supervisor::child("branch", Clock::system(), move || vec![inner.clone()])
    };
    let root = start("root", vec![branch], Clock::system()).await.unwrap();
    address.cast(Order::Fail).unwrap();
    stage.wait_for_lines(2).await;
    assert_eq!(node(&root, "root/branch").restarts, 1);
    assert!(root.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_child_that_ends_by_itself_stays_down_if_it_may() {
    let stage = Stage::new();
    let address = Address::default();
    let root = start("root", vec![stage.witness("one", &address).restarted(Restart::OnFailure)], Clock::system()).await.unwrap();
    address.cast(Order::End).unwrap();
    stage.wait_for_lines(2).await;
    tokio::time::timeout(Duration::from_secs(5), async {
        while node(&root, "root/one").state != State::Stopped {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the picture shows it");
    assert!(root.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_child_that_does_not_stop_is_killed_in_time() {
    let stage = Stage::new();
    let address = Address::default();
    let root = start("root", vec![stage.witness("one", &address).stop_within(Duration::from_millis(50))], Clock::system())
        .await
        .unwrap();
    address.cast(Order::Hang).unwrap();
    let before = Instant::now();
    assert!(root.stop(Duration::from_secs(10)).await);
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn backoff_grows_to_its_limit_and_is_jittered() {
    assert_eq!(backoff(1, 0), BACKOFF_FIRST / 2);
    assert_eq!(backoff(1, u32::MAX), BACKOFF_FIRST);
    assert!(backoff(5, 0) > backoff(2, u32::MAX));
    assert_eq!(backoff(1000, u32::MAX), BACKOFF_MOST);
}
