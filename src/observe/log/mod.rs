//! The log: one line an event, fields after the message, on stderr.
//!
//! Under systemd the journal has the time and gets the priority by sd-daemon's `<N>` prefix;
//! elsewhere each line begins with time and level. Payload, keys and credentials never come here.

use std::fmt;
use std::os::linux::fs::MetadataExt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::problems;

/// Begins to log at `info`, or `debug` if verbose; `EWSBRIDGE_LOG` says otherwise if set.
///
/// A second call changes nothing.
pub fn start(verbose: bool) {
    let level = if verbose { "ewsbridge=debug" } else { "ewsbridge=info" };
    let filter = EnvFilter::try_from_env("EWSBRIDGE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let format = Line { journal: stderr_is_journal() };
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(filter)
        .event_format(format)
        .finish()
        .with(problems::Listening);
    let _ = subscriber.try_init();
}

/// Whether stderr is the very stream that systemd opened: the variable alone may be inherited
/// (systemd.exec(5), `$JOURNAL_STREAM`).
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(file) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", file.st_dev(), file.st_ino())
}

struct Line {
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (priority, word) = match *event.metadata().level() {
            Level::ERROR => (3, "ERROR"),
            Level::WARN => (4, "WARN "),
            Level::INFO => (6, "INFO "),
            _ => (7, "DEBUG"),
        };
        if self.journal {
            write!(out, "<{priority}>")?;
        } else {
            let now = OffsetDateTime::now_utc().replace_nanosecond(0).map_err(|_| fmt::Error)?;
            write!(out, "{} {word} ", now.format(&Rfc3339).map_err(|_| fmt::Error)?)?;
        }
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}
