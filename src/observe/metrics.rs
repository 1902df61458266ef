//! How forwarders stand, as Prometheus reads it: its text format 0.0.4, base units, counters in `_total`.
//!
//! Labels have values of a fixed few: no address of a client, no user, no mailbox.

use std::fmt::{self, Write};

use time::OffsetDateTime;

use super::snapshot::{Count, Snapshot};
use super::tally::Histogram;

/// The `Content-Type` of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of these forwarders. One that does not answer, `Err` with its name, is known to be down.
pub fn text<'a>(forwarders: impl IntoIterator<Item = Result<&'a Snapshot, &'a str>>) -> String {
    let forwarders: Vec<_> = forwarders.into_iter().collect();
    let running: Vec<&Snapshot> = forwarders.iter().filter_map(|one| one.ok()).collect();
    let mut page = Page(String::new());
    page.gauge("up", "Whether the forwarder runs and answers.", |out| {
        for one in &forwarders {
            let (name, up) = one.map_or_else(|name| (name, 0.0), |snapshot| (snapshot.name.as_str(), 1.0));
            out.sample("", &[("forwarder", name)], up);
        }
    });
    of_process(&mut page, &running);
    of_sessions(&mut page, &running);
    of_handshakes(&mut page, &running);
    of_targets(&mut page, &running);
    page.0
}

fn of_process(page: &mut Page, running: &[&Snapshot]) {
    page.gauge("build_info", "Versions of the running program; always 1.", |out| {
        for one in running {
            let labels = [("version", &*one.process.version), ("openssl", &*one.process.openssl)];
            out.of(one, &labels, 1.0);
        }
    });
    page.gauge("start_time_seconds", "When the forwarder began to serve, Unix time.", |out| {
        running.iter().for_each(|one| out.of(one, &[], moment(one.since)));
    });
    page.gauge("settings_load_time_seconds", "When its settings were loaded last, Unix time.", |out| {
        running.iter().for_each(|one| out.of(one, &[], moment(one.loaded)));
    });
    page.gauge("settings_warnings", "Settings that are weak or odd; status names them.", |out| {
        running.iter().for_each(|one| out.of(one, &[], one.warnings.len() as f64));
    });
    page.gauge("process_resident_memory_bytes", "Memory of the process; forwarders of one process share it.", |out| {
        for (one, bytes) in running.iter().filter_map(|one| Some((one, one.process.resident_bytes?))) {
            out.of(one, &[], bytes as f64);
        }
    });
    page.counter("process_cpu_seconds_total", "CPU time of the process; forwarders of one process share it.", |out| {
        for (one, seconds) in running.iter().filter_map(|one| Some((one, one.process.cpu_seconds?))) {
            out.of(one, &[], seconds);
        }
    });
}

fn of_sessions(page: &mut Page, running: &[&Snapshot]) {
    page.gauge("sessions_open", "Open sessions, by TLS version of the target's side.", |out| {
        for one in running {
            for (version, open) in &one.sessions.open_by_version {
                out.of(one, &[("tls_out", version)], *open as f64);
            }
        }
    });
    let about = "Sessions that ended, by TLS version of the target's side, who ended them and how.";
    page.counter("sessions_total", about, |out| out.counts(running, |one| &one.ends));
    page.counter("relayed_bytes_total", "Bytes passed on, inside TLS.", |out| {
        for one in running {
            for (direction, bytes) in [("up", one.sessions.up_bytes), ("down", one.sessions.down_bytes)] {
                out.of(one, &[("direction", direction)], bytes as f64);
            }
        }
    });
    page.counter("clients_refused_total", "Clients turned away, by the setting that did it.", |out| {
        for one in running {
            for (setting, count) in &one.refused {
                out.of(one, &[("setting", setting)], *count as f64);
            }
        }
    });
    page.histogram("session_duration_seconds", "Life of a session, from accept to its end.", |out| {
        out.histogram(running, "session", &[]);
    });
}

fn of_handshakes(page: &mut Page, running: &[&Snapshot]) {
    let about = "TLS handshakes of sessions, by side, version, cipher suite and whether one was resumed.";
    page.counter("handshakes_total", about, |out| out.counts(running, |one| &one.handshakes));
    let about = "What kept connections from coming about, by whose fault, at which stage, and why.";
    page.counter("failures_total", about, |out| out.counts(running, |one| &one.failures));
    page.histogram("connect_duration_seconds", "Look-up and TCP connection to the target.", |out| {
        out.histogram(running, "connect", &[]);
    });
    let about = "TLS handshakes: outbound, the target's alone; inbound, from accept to the end of the client's, \
        with the target's in between.";
    page.histogram("handshake_duration_seconds", about, |out| {
        for side in ["inbound", "outbound"] {
            out.histogram(running, side, &[("side", side)]);
        }
    });
    let about = "When a TLS version was last spoken with the target, Unix time: old ones that stay in the past are \
        no longer needed.";
    page.gauge("tls_last_handshake_timestamp_seconds", about, |out| {
        for one in running {
            for (version, at) in &one.last_spoken {
                out.of(one, &[("version", version)], moment(*at));
            }
        }
    });
}

fn of_targets(page: &mut Page, running: &[&Snapshot]) {
    page.gauge("target_up", "Whether the last connection to the target came about; absent before the first.", |out| {
        for one in running {
            for target in one.targets.iter().filter(|target| target.state != "unknown") {
                out.of(one, &[("target", &target.target)], f64::from(u8::from(target.state == "ok")));
            }
        }
    });
    page.gauge("target_last_handshake_timestamp_seconds", "When its last handshake ended, Unix time.", |out| {
        for one in running {
            for (target, at) in one.targets.iter().filter_map(|target| Some((target, target.last_ok?))) {
                out.of(one, &[("target", &target.target)], moment(at));
            }
        }
    });
    let about = "When a certificate expires, Unix time: our own, or the one that the target showed last.";
    page.gauge("certificate_expiry_timestamp_seconds", about, |out| {
        for one in running {
            for certificate in &one.certificates {
                let target = certificate.target.as_deref().unwrap_or_default();
                let labels = [("certificate", &*certificate.role), ("target", target)];
                out.of(one, &labels[..1 + usize::from(!target.is_empty())], moment(certificate.not_after));
            }
        }
    });
}

#[allow(clippy::cast_precision_loss)]
fn moment(at: OffsetDateTime) -> f64 {
    at.unix_timestamp() as f64
}

/// The page as it grows. A metric without any sample leaves no trace.
struct Page(String);

/// One metric's samples.
struct Samples<'a> {
    name: &'a str,
    text: String,
}

impl Page {
    fn gauge(&mut self, name: &str, about: &str, samples: impl FnOnce(&mut Samples<'_>)) {
        self.metric("gauge", name, about, samples);
    }

    fn counter(&mut self, name: &str, about: &str, samples: impl FnOnce(&mut Samples<'_>)) {
        self.metric("counter", name, about, samples);
    }

    fn histogram(&mut self, name: &str, about: &str, samples: impl FnOnce(&mut Samples<'_>)) {
        self.metric("histogram", name, about, samples);
    }

    fn metric(&mut self, kind: &str, name: &str, about: &str, samples: impl FnOnce(&mut Samples<'_>)) {
        let mut out = Samples { name, text: String::new() };
        samples(&mut out);
        if !out.text.is_empty() {
            let page = &mut self.0;
            let _ = write!(page, "# HELP ewsbridge_{name} {about}\n# TYPE ewsbridge_{name} {kind}\n{}", out.text);
        }
    }
}

impl Samples<'_> {
    fn of(&mut self, one: &Snapshot, labels: &[(&str, &str)], value: f64) {
        self.sample("", &[&[("forwarder", one.name.as_str())], labels].concat(), value);
    }

    fn counts(&mut self, running: &[&Snapshot], counts: impl Fn(&Snapshot) -> &Vec<Count>) {
        for one in running {
            for count in counts(one) {
                let labels: Vec<_> = count.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                self.of(one, &labels, count.count as f64);
            }
        }
    }

    fn histogram(&mut self, running: &[&Snapshot], which: &str, labels: &[(&str, &str)]) {
        for one in running {
            let Some(Histogram { bounds, counts, count, sum }) = one.durations.get(which) else { continue };
            let labels = [&[("forwarder", one.name.as_str())], labels].concat();
            let ends = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (end, below) in ends.zip(counts.iter().chain([count])) {
                self.sample("_bucket", &[&labels[..], &[("le", end.as_str())]].concat(), *below as f64);
            }
            self.sample("_sum", &labels, *sum);
            self.sample("_count", &labels, *count as f64);
        }
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let Self { name, text } = self;
        let _ = write!(text, "ewsbridge_{name}{suffix}");
        for (nth, (label, value)) in labels.iter().enumerate() {
            let open = if nth == 0 { '{' } else { ',' };
            let _ = write!(text, "{open}{label}=\"{}\"", Escaped(value));
        }
        let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// A label's value as it may stand between quotes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_down_and_has_no_other_metric() {
        let page = text([Err("exch2")]);
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(
            lines,
            [
                "# HELP ewsbridge_up Whether the forwarder runs and answers.",
                "# TYPE ewsbridge_up gauge",
                "ewsbridge_up{forwarder=\"exch2\"} 0",
            ]
        );
    }

    #[test]
    fn a_histogram_ends_with_all_of_them() {
        let mut snapshot = Snapshot::of("exch1");
        let mut times = Histogram::new(&[0.25, 1.0]);
        times.add(std::time::Duration::from_millis(500));
        times.add(std::time::Duration::from_secs(2));
        snapshot.durations.insert("session".to_owned(), times);
        let page = text([Ok(&snapshot)]);
        let lines: Vec<_> = page.lines().filter(|line| line.starts_with("ewsbridge_session_duration")).collect();
        assert_eq!(
            lines,
            [
                "ewsbridge_session_duration_seconds_bucket{forwarder=\"exch1\",le=\"0.25\"} 0",
                "ewsbridge_session_duration_seconds_bucket{forwarder=\"exch1\",le=\"1\"} 1",
                "ewsbridge_session_duration_seconds_bucket{forwarder=\"exch1\",le=\"+Inf\"} 2",
                "ewsbridge_session_duration_seconds_sum{forwarder=\"exch1\"} 2.5",
                "ewsbridge_session_duration_seconds_count{forwarder=\"exch1\"} 2",
            ]
        );
    }

    #[test]
    fn a_label_can_not_end_its_line() {
        assert_eq!(Escaped("a\"b\\c\nd").to_string(), "a\\\"b\\\\c\\nd");
    }
}
