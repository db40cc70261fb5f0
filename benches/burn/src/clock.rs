//! Wall time, and the running time of all threads of the process, which Linux reports.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

/// Seconds per repetition.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub wall: f64,
    /// NaN where the system doesn't report it.
    pub threads: f64,
}

impl Times {
    /// The medians of both.
    pub fn median(samples: &[Times]) -> Times {
        let median = |of: fn(&Times) -> f64| {
            let mut sorted: Vec<f64> = samples.iter().map(of).collect();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Times { wall: median(|t| t.wall), threads: median(|t| t.threads) }
    }

    /// The time by which forms are compared.
    pub fn busy(&self) -> f64 {
        if self.threads.is_nan() { self.wall } else { self.threads }
    }

    pub fn to_json(self) -> Value {
        json!({ "wall_seconds": self.wall, "thread_seconds": (!self.threads.is_nan()).then_some(self.threads) })
    }
}

pub struct Clock;

impl Clock {
    pub fn has_thread_time() -> bool {
        thread_seconds().is_some()
    }

    /// Times `work`, which consists of `times` repetitions.
    pub fn time(times: usize, work: impl FnOnce() -> Result<(), String>) -> Result<Times, String> {
        let (begun, threads) = (Instant::now(), thread_seconds());
        work()?;
        let (wall, more) = (begun.elapsed().as_secs_f64(), thread_seconds());
        let threads = threads.zip(more).map_or(f64::NAN, |(before, after)| after - before);
        Ok(Times { wall: wall / times as f64, threads: threads / times as f64 })
    }
}

/// Seconds that the threads of this process have run. Threads that have ended are missing; both sides keep theirs.
fn thread_seconds() -> Option<f64> {
    let mut nanoseconds = 0u64;
    for task in fs::read_dir("/proc/self/task").ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 / 1e9)
}
