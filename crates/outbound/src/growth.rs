//! How many connections a transfer should have: more while more bring more, fewer when the server asks for it.

use std::time::Duration;

/// How often the rate is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(LOOK_EVERY_MILLISECONDS);
const LOOK_EVERY_MILLISECONDS: u64 = 250;
/// Looks before a change shows.
const LOOKS_PER_STEP: u32 = 2;
/// Each step multiplies the connections by this.
const FACTOR: u32 = 3;
/// A step must bring this much to be kept.
const WORTH_IT_PERCENT: u64 = 115;
/// A single connection that is this fast (bytes per second) is held up by our own machine, not by the network.
const FAST_ENOUGH: u64 = 400_000_000;

/// The number of connections, and what it follows from.
#[derive(Clone, Debug)]
pub(crate) struct Growth {
    connections: u32,
    most: u32,
    looks: u32,
    /// Connections and rate before the last step.
    before: Option<(u32, u64)>,
    settled: bool,
    bytes_since_step: u64,
}

impl Growth {
    /// Begin with one connection, and grow to `most`.
    pub(crate) fn new(most: u32) -> Growth {
        let most = most.max(1);
        Growth { connections: 1, most, looks: 0, before: None, settled: most == 1, bytes_since_step: 0 }
    }

    /// Connections that there should be.
    pub(crate) fn connections(&self) -> u32 {
        self.connections
    }

    /// The server asks for less.
    pub(crate) fn throttled(&mut self) {
        self.connections = (self.connections / 2).max(1);
        self.settled = true;
    }

    /// So many bytes came since the last look. `held_up`: not the network was the limit but what stands behind it.
    pub(crate) fn look(&mut self, bytes: u64, held_up: bool) {
        if self.settled {
            return;
        }
        if held_up {
            (self.looks, self.bytes_since_step) = (0, 0);
            return;
        }
        self.looks += 1;
        // The first look after a step still sees what was before.
        if self.before.is_some() && self.looks == 1 {
            return;
        }
        self.bytes_since_step += bytes;
        if self.looks < LOOKS_PER_STEP + u32::from(self.before.is_some()) {
            return;
        }
        let rate = self.bytes_since_step.saturating_mul(1000) / (LOOK_EVERY_MILLISECONDS * u64::from(LOOKS_PER_STEP));
        if let Some((fewer, slower)) = self.before
            && rate.saturating_mul(100) < slower.saturating_mul(WORTH_IT_PERCENT)
        {
            self.connections = fewer;
            self.settled = true;
            return;
        }
        if rate >= FAST_ENOUGH || self.connections == self.most {
            self.settled = true;
            return;
        }
        self.before = Some((self.connections, rate));
        self.connections = (self.connections * FACTOR).min(self.most);
        (self.looks, self.bytes_since_step) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections after some seconds with a source that gives `per_connection` bytes per second to each of them, and
    /// `in_all` to all.
    fn settled(most: u32, per_connection: u64, in_all: u64) -> u32 {
        let mut growth = Growth::new(most);
        for _ in 0..40 {
            let rate = (u64::from(growth.connections()) * per_connection).min(in_all);
            growth.look(rate / 4, false);
        }
        growth.connections()
    }

    #[test]
    fn it_grows_while_more_connections_bring_more() {
        assert_eq!(settled(8, 1_000_000, u64::MAX), 8);
        assert_eq!(settled(64, 1_000_000, u64::MAX), 64);
        assert_eq!(settled(1, 1_000_000, u64::MAX), 1);
    }

    #[test]
    fn it_goes_back_when_more_connections_bring_nothing() {
        assert_eq!(settled(8, 1_000_000, 1_000_000), 1);
        assert_eq!(settled(8, 1_000_000, 3_000_000), 3);
    }

    #[test]
    fn it_stays_where_it_is_when_the_source_is_fast_or_the_store_is_slow() {
        assert_eq!(settled(8, 1_000_000_000, u64::MAX), 1);
        let mut growth = Growth::new(8);
        for _ in 0..40 {
            growth.look(1_000_000, true);
        }
        assert_eq!(growth.connections(), 1);
    }

    #[test]
    fn it_halves_when_the_server_asks_for_less() {
        let mut growth = Growth::new(8);
        for _ in 0..40 {
            growth.look(u64::from(growth.connections()) * 1000, false);
        }
        growth.throttled();
        assert_eq!(growth.connections(), 4);
        growth.look(1_000_000, false);
        assert_eq!(growth.connections(), 4);
    }
}
