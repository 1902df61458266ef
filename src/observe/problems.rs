//! The last warnings and errors of each forwarder, as the log has them.
//!
//! Whatever is told there with a forwarder's name is kept here, so that `status` can repeat it together
//! with its cure; nobody has to tell it twice.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// When it was last told.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// `error` or `warning`.
    pub level: String,
    /// What was told.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The client that it concerned.
    pub client: Option<String>,
    /// How often in a row, whichever the client.
    pub count: u64,
}

/// So many are kept of each forwarder.
const KEPT: usize = 10;

static PROBLEMS: Mutex<Option<HashMap<String, VecDeque<Problem>>>> = Mutex::new(None);

fn problems() -> MutexGuard<'static, Option<HashMap<String, VecDeque<Problem>>>> {
    PROBLEMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those of one forwarder, the newest first.
pub fn of(forwarder: &str) -> Vec<Problem> {
    let problems = problems();
    let own = problems.as_ref().and_then(|all| all.get(forwarder));
    own.map(|own| own.iter().rev().cloned().collect()).unwrap_or_default()
}

fn keep(forwarder: String, problem: Problem) {
    let mut problems = problems();
    let own = problems.get_or_insert_default().entry(forwarder).or_default();
    match own.back_mut() {
        Some(last) if (&last.text, &last.level) == (&problem.text, &problem.level) => {
            *last = Problem { count: last.count + 1, ..problem };
        }
        _ => own.push_back(problem),
    }
    if own.len() > KEPT {
        own.pop_front();
    }
}

/// Listens to the log.
#[derive(Debug)]
pub struct Listening;

impl<S: Subscriber> Layer<S> for Listening {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => return,
        };
        let mut said = Said::default();
        event.record(&mut said);
        let Some(forwarder) = said.forwarder else { return };
        let problem = Problem {
            time: OffsetDateTime::now_utc(),
            level: level.to_owned(),
            text: said.message,
            hint: said.hint,
            client: said.client,
            count: 1,
        };
        keep(forwarder, problem);
    }
}

#[derive(Default)]
struct Said {
    forwarder: Option<String>,
    message: String,
    hint: Option<String>,
    client: Option<String>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "forwarder" => self.forwarder = Some(format!("{value:?}")),
            "message" => self.message = format!("{value:?}"),
            "hint" => self.hint = Some(format!("{value:?}")),
            "client" => self.client = Some(format!("{value:?}")),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn the_last_ten_are_kept_the_newest_first_and_what_repeats_is_counted() {
        let subscriber = tracing_subscriber::registry().with(Listening);
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..12 {
                tracing::warn!(forwarder = "ten", "problem {number}");
            }
            for port in [1, 2] {
                tracing::error!(forwarder = %"ten", client = %format!("10.0.0.1:{port}"), hint = Some("do that"), "again");
            }
            tracing::info!(forwarder = "ten", "all is well");
            tracing::warn!("of nobody");
        });
        let kept = of("ten");
        assert_eq!(kept.len(), KEPT);
        let last = &kept[0];
        assert_eq!((last.text.as_str(), last.count, last.level.as_str()), ("again", 2, "error"));
        assert_eq!((last.hint.as_deref(), last.client.as_deref()), (Some("do that"), Some("10.0.0.1:2")));
        assert_eq!((kept[1].text.as_str(), kept[9].text.as_str()), ("problem 11", "problem 3"));
        assert_eq!(of("another"), []);
    }
}
