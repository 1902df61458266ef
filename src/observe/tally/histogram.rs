//! Times, sorted into buckets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often something took no longer than each bound, as Prometheus has it: every bucket counts those
/// below it as well, and the last bound, infinity, is the count of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Upper bounds, in seconds.
    pub bounds: Vec<f64>,
    /// One for each bound; those beyond the last are in `count` alone.
    pub counts: Vec<u64>,
    /// All.
    pub count: u64,
    /// All times together, in seconds.
    pub sum: f64,
}

/// For what takes a network and a handshake.
pub(super) const HANDSHAKE: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// For the life of a connection: one request takes a moment, a stream of events half an hour or more.
pub(super) const SESSION: [f64; 8] = [0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0];

impl Histogram {
    /// An empty one with these bounds.
    pub fn new(bounds: &[f64]) -> Self {
        Self { bounds: bounds.to_vec(), counts: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    /// Counts one more.
    pub fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        for (bound, count) in self.bounds.iter().zip(&mut self.counts) {
            *count += u64::from(seconds <= *bound);
        }
        self.count += 1;
        self.sum += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_counts_what_is_below_its_bound_and_at_it() {
        let mut times = Histogram::new(&[0.25, 1.0]);
        for milliseconds in [250, 251, 1000, 5000] {
            times.add(Duration::from_millis(milliseconds));
        }
        assert_eq!((times.counts, times.count), (vec![1, 3], 4));
        assert!((times.sum - 6.501).abs() < 1e-9);
    }
}
