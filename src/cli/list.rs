//! `list`: all forwarders, one line each.

use clap::Args;
use serde::Serialize;

use super::Done;
use crate::config::settings::Trust;
use crate::config::{Name, Places, Settings, store};
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
                note.lines().next().unwrap_or_default().to_owned(),
            ]
        };
        let head = ["NAME", "STATE", "LISTEN", "TARGET", "TRUST", "NOTE"].map(str::to_owned);
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
        problem,
        warnings: settings.as_ref().map(Settings::warnings).unwrap_or_default(),
    }
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
