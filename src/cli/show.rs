//! `show`: the settings in force, defaults included.

use clap::Args;
use serde::Serialize;
use toml_edit::DocumentMut;

use super::Done;
use super::failed::{Failed, code};
use super::talk::say;
use crate::config::settings::KEYS;
use crate::config::{Places, store};

/// The settings in force, defaults included.
#[derive(Args)]
pub(super) struct Show {
    /// The forwarder
    name: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    key: &'static str,
    value: Option<String>,
    default: bool,
}

#[derive(Serialize)]
struct Document {
    schema: u8,
    ok: bool,
    name: String,
    file: String,
    settings: Vec<Row>,
}

impl Show {
    /// Prints every key.
    pub(super) fn run(self, places: &Places) -> Done {
        let name = self.name.parse().map_err(|error| Failed::with(code::USAGE, error))?;
        store::load(places, &name)?;
        let text = store::read_text(places, &name)?;
        let document: DocumentMut = text.parse().map_err(Failed::new)?;
        let rows: Vec<Row> = KEYS
            .iter()
            .map(|key| {
                let chosen = document.get(key.name).map(|item| item.to_string().trim().to_owned());
                let chosen = chosen.map(|value| value.split(" #").next().unwrap_or(&value).trim().to_owned());
                let default = (!key.default.is_empty()).then(|| key.default.to_owned());
                Row { key: key.name, default: chosen.is_none(), value: chosen.or(default) }
            })
            .collect();
        let file = places.forwarder(&name).display().to_string();
        if self.json {
            super::print_json(&Document { schema: 1, ok: true, name: name.to_string(), file, settings: rows });
            return Ok(0);
        }
        say!("# {file}");
        for row in rows {
            match row {
                Row { key, value: Some(value), default: false } => say!("{key:<19} = {value}"),
                Row { key, value: Some(value), default: true } => say!("{key:<19} = {value:<12} # default"),
                Row { key, value: None, .. } => say!("#{key:<18} is not set"),
            }
        }
        Ok(0)
    }
}
