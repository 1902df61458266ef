//! The page for people: a line a subject, a label before it, no frames.

use std::fmt::Write;

use time::{OffsetDateTime, UtcOffset};

use super::{Seen, state, trust};
use crate::config::{Places, store};
use crate::observe::problems::Problem;
use crate::observe::snapshot::{Certificate, Connection, Count, Snapshot};
use crate::observe::tally::target::Standing;
use crate::service::units;

/// Columns of the labels.
const LABEL: usize = 10;
/// Connections that are shown; all are in the JSON.
const SHOWN: usize = 20;

/// All forwarders, one below the other; broken at `width` where there is one.
pub(super) fn page(seen: &[Seen], places: &Places, width: Option<usize>) -> String {
    if seen.is_empty() {
        return "there are no forwarders yet; the first: ewsbridge add NAME PORT HOST:PORT\n".to_owned();
    }
    let pages: Vec<String> = seen.iter().map(|one| Page::of(one, places, width)).collect();
    pages.join("\n")
}

struct Page {
    out: String,
    width: Option<usize>,
    now: OffsetDateTime,
}

impl Page {
    fn of(seen: &Seen, places: &Places, width: Option<usize>) -> String {
        let mut page = Self { out: String::new(), width, now: OffsetDateTime::now_utc() };
        page.head(seen, places);
        match &seen.snapshot {
            Some(snapshot) => page.running(seen, snapshot, places),
            None => page.stopped(seen, places),
        }
        page.out
    }

    fn head(&mut self, seen: &Seen, places: &Places) {
        let settings = store::load(places, &seen.name).ok();
        let (listen, target) = match (&seen.snapshot, settings) {
            (Some(snapshot), _) => (snapshot.listen.clone(), snapshot.target.clone()),
            (None, Some(settings)) => (settings.listen.to_string(), settings.target.to_string()),
            (None, None) => ("?".to_owned(), "?".to_owned()),
        };
        let _ = writeln!(self.out, "{}: clients -> {listen} -> {target}", seen.name);
    }

    fn stopped(&mut self, seen: &Seen, places: &Places) {
        self.service(seen, None);
        self.invalid(seen);
        if let Some(trust) = trust(places, &seen.name) {
            self.field("Trust", &trust);
        }
        if seen.unit.is_some() {
            let unit = units::unit_of(&seen.name);
            self.field("Next", &format!("systemctl start {unit}; why it ended: journalctl -u {unit} -e"));
        } else {
            self.field("Next", &format!("ewsbridge run {}", seen.name));
        }
    }

    fn running(&mut self, seen: &Seen, snapshot: &Snapshot, places: &Places) {
        self.service(seen, Some(snapshot));
        self.invalid(seen);
        let file = places.forwarder(&seen.name);
        self.field("Settings", &format!("{}, loaded {}", file.display(), self.moment(snapshot.loaded)));
        for target in &snapshot.targets {
            self.target(target, snapshot.targets.len() > 1);
        }
        self.certificates(snapshot);
        self.traffic(snapshot);
        for warning in &snapshot.warnings {
            self.field("Weak", warning);
        }
        self.connections(snapshot.connections.as_deref().unwrap_or_default());
        self.problems(seen, &snapshot.problems);
    }

    fn service(&mut self, seen: &Seen, snapshot: Option<&Snapshot>) {
        let mut text = state(seen).to_owned();
        match snapshot {
            Some(snapshot) => {
                let age = duration((self.now - snapshot.since).as_seconds_f64());
                let _ = write!(
                    text,
                    " since {} ({age}), PID {}, version {}",
                    self.moment(snapshot.since),
                    snapshot.process.pid,
                    snapshot.process.version
                );
            }
            None => {
                if let Some(since) = seen.unit.as_ref().and_then(|unit| unit.since.as_deref()) {
                    let _ = write!(text, " since {since}");
                }
            }
        }
        if let Some(unit) = &seen.unit {
            text += if unit.enabled { ", starts at boot" } else { ", does not start at boot" };
        }
        self.field("Service", &text);
    }

    fn invalid(&mut self, seen: &Seen) {
        for line in seen.invalid.iter().flat_map(|text| text.lines()) {
            self.field("Settings", &format!("INVALID: {line}"));
        }
    }

    fn target(&mut self, target: &Standing, by_name: bool) {
        let mut text = if by_name { format!("{}: ", target.target) } else { String::new() };
        let agreed = || {
            let (tls, suite) = (target.tls.as_deref()?, target.suite.as_deref()?);
            Some(format!("TLS {tls} {suite}"))
        };
        match target.state.as_str() {
            "ok" => {
                let address = target.address.as_deref().unwrap_or("-");
                let age = target.last_ok.map_or_else(String::new, |at| {
                    format!(", last handshake {} ago", duration((self.now - at).as_seconds_f64()))
                });
                let took =
                    target.handshake_seconds.map_or_else(String::new, |time| format!(" in {:.0} ms", time * 1e3));
                let _ = write!(text, "ok, {address}, {}{age}{took}", agreed().unwrap_or_default());
            }
            "down" => {
                let since = target
                    .down_since
                    .map_or_else(String::new, |at| format!(" for {}", duration((self.now - at).as_seconds_f64())));
                let _ = write!(text, "DOWN{since}: {}", target.cause.as_deref().unwrap_or("unknown"));
            }
            _ => text += "no connection yet",
        }
        self.field("Target", &text);
        if let Some(hint) = target.hint.as_deref().filter(|_| target.state == "down") {
            self.field("", &format!("hint: {hint}"));
        }
    }

    fn certificates(&mut self, snapshot: &Snapshot) {
        for certificate in snapshot.certificates.iter().filter(|one| one.role == "target") {
            let who = certificate.vouched_by.as_deref().map_or("NOBODY vouches".to_owned(), |by| format!("by {by}"));
            let mut text = format!("{}, {who}; {}", certificate.subject, self.until(certificate));
            if snapshot.targets.len() > 1 {
                text = format!("{}: {text}", certificate.target.as_deref().unwrap_or_default());
            }
            self.field("Trust", &text);
        }
        for certificate in snapshot.certificates.iter().filter(|one| one.role == "own") {
            self.field("Identity", &format!("{}; {}", certificate.names.join(", "), self.until(certificate)));
        }
    }

    fn until(&self, certificate: &Certificate) -> String {
        let days = (certificate.not_after - self.now).whole_days();
        let date = certificate.not_after.date();
        if certificate.not_after < self.now { format!("EXPIRED on {date}") } else { format!("to {date} ({days} days)") }
    }

    fn traffic(&mut self, snapshot: &Snapshot) {
        let side = |wanted: &str| {
            let mut agreed: Vec<(String, u64)> = Vec::new();
            for one in snapshot.handshakes.iter().filter(|one| label(one, "side") == wanted) {
                let what = format!("TLS {} {}", label(one, "version"), label(one, "suite"));
                match agreed.iter_mut().find(|(known, _)| *known == what) {
                    Some((_, count)) => *count += one.count,
                    None => agreed.push((what, one.count)),
                }
            }
            agreed.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            agreed.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
        };
        let sessions = &snapshot.sessions;
        let mut text = format!(
            "{} open, {} done; up {}, down {}",
            sessions.open,
            sessions.done,
            bytes(sessions.up_bytes),
            bytes(sessions.down_bytes)
        );
        if let Some(memory) = snapshot.process.resident_bytes {
            let _ = write!(text, "; memory {}", bytes(memory));
        }
        self.field("Traffic", &text);
        if let Some(rates) = &snapshot.rates {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let moved = |rate: f64| bytes(rate as u64);
            let over = duration(rates.over_seconds);
            let (up, down) = (moved(rates.up_bytes_per_second), moved(rates.down_bytes_per_second));
            self.field(
                "Rates",
                &format!("{:.1} new/s, up {up}/s, down {down}/s (last {over})", rates.sessions_per_second),
            );
        }
        for (label, text) in [("Inbound", side("inbound")), ("Outbound", side("outbound"))] {
            if !text.is_empty() {
                self.field(label, &text);
            }
        }
        let list = |counts: &[Count], labels: &[&str]| {
            let mut all: Vec<(String, u64)> = Vec::new();
            for one in counts {
                let what = labels.iter().map(|name| label(one, name)).collect::<Vec<_>>().join(" ");
                match all.iter_mut().find(|(known, _)| *known == what) {
                    Some((_, count)) => *count += one.count,
                    None => all.push((what, one.count)),
                }
            }
            all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            all.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
        };
        for (label, text) in [
            ("Ends", list(&snapshot.ends, &["ended_by", "end"])),
            ("Failures", list(&snapshot.failures, &["side", "stage", "reason"])),
        ] {
            if !text.is_empty() {
                self.field(label, &text);
            }
        }
        let refused: Vec<String> = snapshot
            .refused
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(setting, count)| format!("{count} {setting}"))
            .collect();
        if !refused.is_empty() {
            self.field("Refused", &refused.join(", "));
        }
    }

    fn connections(&mut self, connections: &[Connection]) {
        if connections.is_empty() {
            return;
        }
        let _ = writeln!(self.out, "Open connections, the oldest first");
        let head = ["CLIENT", "OPEN", "IDLE", "TLS", "UP", "DOWN"].map(str::to_owned);
        let row = |one: &Connection| {
            [
                one.client.clone(),
                duration(one.open_seconds),
                duration(one.idle_seconds),
                format!("{} > {}", one.tls_in, one.tls_out),
                bytes(one.up_bytes),
                bytes(one.down_bytes),
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(connections.iter().take(SHOWN).map(row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..6).map(width).collect();
        for row in &rows {
            let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let _ = writeln!(self.out, "  {}", cells.join("  ").trim_end());
        }
        if connections.len() > SHOWN {
            let _ = writeln!(self.out, "  and {} more; all: --json", connections.len() - SHOWN);
        }
    }

    fn problems(&mut self, seen: &Seen, problems: &[Problem]) {
        if problems.is_empty() {
            return;
        }
        let all = match seen.unit {
            Some(_) => format!(" (all: journalctl -u {} -p warning)", units::unit_of(&seen.name)),
            None => String::new(),
        };
        let _ = writeln!(self.out, "Last problems{all}");
        for problem in problems {
            let times = if problem.count > 1 { format!(" ({} times in a row)", problem.count) } else { String::new() };
            let client = problem.client.as_ref().map_or_else(String::new, |client| format!(", client {client}"));
            let text = format!("{}{client}{times}", problem.text);
            let time = self.moment(problem.time);
            self.wrapped(&format!("  {time}  "), &text);
            if let Some(hint) = &problem.hint {
                self.wrapped("    hint: ", hint);
            }
        }
    }

    /// A label, flush right, and its text.
    fn field(&mut self, label: &str, text: &str) {
        let head = if label.is_empty() { " ".repeat(LABEL + 2) } else { format!("{label:>LABEL$}: ") };
        self.wrapped(&head, text);
    }

    /// Text behind a head, broken between words where the terminal ends, with what follows below it.
    fn wrapped(&mut self, head: &str, text: &str) {
        let indent = if head.chars().count() > 2 * LABEL { LABEL } else { head.chars().count() };
        let mut line = head.to_owned();
        let mut is_fresh = true;
        for word in text.split(' ') {
            let fits = self.width.is_none_or(|width| line.chars().count() + 1 + word.chars().count() <= width);
            if !is_fresh && !fits {
                let _ = writeln!(self.out, "{}", line.trim_end());
                (line, is_fresh) = (" ".repeat(indent), true);
            }
            if !is_fresh {
                line.push(' ');
            }
            line += word;
            is_fresh = false;
        }
        let _ = writeln!(self.out, "{}", line.trim_end());
    }

    /// A moment by this machine's clock, the date only if it is not today.
    fn moment(&self, at: OffsetDateTime) -> String {
        let local = |at: OffsetDateTime| {
            // Known only while there is but one thread, as there is here.
            let offset = UtcOffset::local_offset_at(at);
            (at.to_offset(offset.unwrap_or(UtcOffset::UTC)), if offset.is_ok() { "" } else { " UTC" })
        };
        let ((at, zone), (now, _)) = (local(at), local(self.now));
        let time = format!("{:02}:{:02}:{:02}{zone}", at.hour(), at.minute(), at.second());
        if at.date() == now.date() { time } else { format!("{} {time}", at.date()) }
    }
}

fn label<'a>(count: &'a Count, name: &str) -> &'a str {
    count.labels.get(name).map_or("", String::as_str)
}

/// Bytes in the largest binary unit.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[allow(clippy::cast_precision_loss)]
    let mut rest = count as f64;
    let mut unit = 0;
    while rest >= 1024.0 && unit + 1 < UNITS.len() {
        rest /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{rest:.1} {}", UNITS[unit]) }
}

/// A time in its largest unit.
fn duration(seconds: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole / 60),
        7200..172_800 => format!("{} h", whole / 3600),
        _ => format!("{} days", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_times_have_the_largest_unit_that_tells() {
        for (count, expected) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_288_490_188, "1.2 GiB")] {
            assert_eq!(bytes(count), expected);
        }
        for (seconds, expected) in [(0.4, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7200.0, "2 h"), (2e5, "2 days")]
        {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn a_long_text_is_broken_between_words_and_goes_on_below_its_beginning() {
        let mut page = Page { out: String::new(), width: Some(40), now: OffsetDateTime::UNIX_EPOCH };
        page.field("Trust", "CN=ews.corp, by this system; to 2027-03-02 (99 days)");
        assert_eq!(page.out, "     Trust: CN=ews.corp, by this system;\n            to 2027-03-02 (99 days)\n");
        let mut page = Page { out: String::new(), width: None, now: OffsetDateTime::UNIX_EPOCH };
        page.field("Ends", &"word ".repeat(40));
        assert_eq!(page.out.lines().count(), 1, "a pipe has no end");
    }
}
