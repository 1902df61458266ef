//! `list`: all forwarders, one line each.

use clap::Args;
use serde::Serialize;

use super::Done;
use crate::config::settings::Trust;
use crate::config::{Name, Places, Settings, store};
use crate::observe::snapshot::Snapshot;
use crate::service::control::Order;
use crate::service::units;

/// All forwarders, one line each.
#[derive(Args)]
pub(super) struct List {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    state: &'static str,
    listen: Option<String>,
    target: Option<String>,
    trust: Option<String>,
    tls_in: Option<String>,
    tls_out: Option<String>,
    open: Option<u64>,
    last_ok: Option<String>,
    problem: Option<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Document {
    schema: u8,
    ok: bool,
    forwarders: Vec<Row>,
}

impl List {
    /// Prints the list.
    pub(super) fn run(self, places: &Places) -> Done {
        let rows: Vec<Row> = store::names(places)?.iter().map(|name| row(places, name)).collect();
        if self.json {
            super::print_json(&Document { schema: 1, ok: true, forwarders: rows });
            return Ok(0);
        }
        if rows.is_empty() {
            eprintln!("there are no forwarders yet; the first: ewsbridge add NAME PORT HOST:PORT");
            return Ok(0);
        }
        let cells = |row: &Row| {
            let dash = || "-".to_owned();
            let note = row.problem.clone().unwrap_or_else(|| row.warnings.join("; "));
            [
                row.name.clone(),
                row.state.to_owned(),
                row.listen.clone().unwrap_or_else(dash),
                row.target.clone().unwrap_or_else(dash),
                row.trust.clone().unwrap_or_else(dash),
                row.tls_out
                    .as_ref()
                    .map_or_else(dash, |out| format!("{} > {out}", row.tls_in.as_deref().unwrap_or("?"))),
                row.open.map_or_else(dash, |open| open.to_string()),
                note.lines().next().unwrap_or_default().to_owned(),
            ]
        };
        let head = ["NAME", "STATE", "LISTEN", "TARGET", "TRUST", "TLS", "OPEN", "NOTE"].map(str::to_owned);
        super::print_table(std::iter::once(head).chain(rows.iter().map(cells)));
        Ok(0)
    }
}

fn row(places: &Places, name: &Name) -> Row {
    let settings = store::load(places, name);
    let state = match &settings {
        Err(_) => "invalid",
        Ok(_) => state(places, name),
    };
    let snapshot = seen(places, name);
    // Without systemd the process says itself that it runs.
    let state = match &snapshot {
        Some(snapshot) if state == "-" => {
            if snapshot.state == "stopping" {
                "stopping"
            } else {
                "running"
            }
        }
        _ => state,
    };
    let (settings, problem) = match settings {
        Ok(settings) => (Some(settings), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let text = |value: fn(&Settings) -> String| settings.as_ref().map(value);
    Row {
        name: name.to_string(),
        state,
        listen: text(|settings| settings.listen.to_string()),
        target: text(|settings| settings.target.to_string()),
        trust: text(|settings| trust_text(&settings.trust)),
        tls_in: snapshot.as_ref().and_then(|snapshot| last_version(snapshot, "inbound")),
        tls_out: snapshot.as_ref().and_then(|snapshot| snapshot.targets.iter().find_map(|target| target.tls.clone())),
        open: snapshot.as_ref().map(|snapshot| snapshot.sessions.open),
        last_ok: snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.targets.iter().filter_map(|target| target.last_ok).max().map(super::rfc3339)),
        problem: problem.or_else(|| snapshot.as_ref().and_then(down)),
        warnings: settings.as_ref().map(Settings::warnings).unwrap_or_default(),
    }
}

/// What it says of itself, if it runs and this user may ask.
fn seen(places: &Places, name: &Name) -> Option<Snapshot> {
    super::status::ask(places, name, Order::Summary).ok().flatten()
}

/// The newest version that clients spoke.
fn last_version(snapshot: &Snapshot, side: &str) -> Option<String> {
    let of_side = snapshot.handshakes.iter().filter(|count| count.labels.get("side").is_some_and(|is| is == side));
    of_side.filter_map(|count| count.labels.get("version")).max().cloned()
}

/// What there is to say of a target that is down, if none is up.
fn down(snapshot: &Snapshot) -> Option<String> {
    let is_down = snapshot.targets.iter().all(|target| target.state == "down");
    let target = snapshot.targets.first().filter(|_| is_down)?;
    Some(format!("target down: {}", target.cause.as_deref().unwrap_or("unknown")))
}

/// `running`, `stopped` … by systemd; `-` where it can't tell.
pub(super) fn state(places: &Places, name: &Name) -> &'static str {
    if !places.are_system() || !units::running() {
        return "-";
    }
    units::status(name).map_or("-", |status| status.state.as_str())
}

/// How the target is judged, in a word or two.
pub(super) fn trust_text(trust: &Trust) -> String {
    let faults = |accept: &[crate::config::values::Fault]| {
        accept.iter().map(|fault| format!(" +{}", fault.word())).collect::<String>()
    };
    match trust {
        Trust::System(accept) => format!("system{}", faults(accept)),
        Trust::Ca(_, accept) => format!("ca{}", faults(accept)),
        Trust::Pin(pins) if pins.len() == 1 => "pin".to_owned(),
        Trust::Pin(pins) => format!("{} pins", pins.len()),
        Trust::Insecure => "NONE".to_owned(),
    }
}
