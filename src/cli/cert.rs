//! `cert`: the certificate that clients must trust, and the renewal of what is served.

use std::fs;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::failed::{Failed, code};
use super::talk::{Word, say, step};
use super::{Done, identities, proof, require_rights};
use crate::bridge::forwarder;
use crate::config::{Name, Places, store};
use crate::service;
use crate::tls::certificate::Facts;
use crate::tls::identity;
use crate::tls::reference::Anchor;

/// The certificate that clients must trust, and renewal.
#[derive(Args)]
pub(super) struct Cert {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print what goes into a client's "server or root certificate" field
    Show {
        /// The forwarder
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Renew certificates that are past two thirds of their life, take over foreign ones that changed
    Renew {
        /// Forwarders
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// Every forwarder
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Renew whatever its age
        #[arg(long)]
        force: bool,
    },
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u8,
    ok: bool,
    name: String,
    subject: &'a str,
    not_after: String,
    sha256: String,
    thumbprint: &'a str,
    vouches: &'a [String],
    pem: &'a str,
}

impl Cert {
    /// Runs the subcommand.
    pub(super) fn run(self, places: &Places) -> Done {
        match self.command {
            Command::Show { name, json } => show(places, &parse(&name)?, json),
            Command::Renew { names, all, force } => {
                require_rights(places)?;
                let names = match all {
                    true => store::names(places)?,
                    false => names.iter().map(|name| parse(name)).collect::<Result<_, _>>()?,
                };
                renew(places, &names, force)
            }
        }
    }
}

fn parse(name: &str) -> Result<Name, Failed> {
    name.parse().map_err(|error| Failed::with(code::USAGE, error))
}

fn show(places: &Places, name: &Name, json: bool) -> Done {
    store::read_text(places, name)?;
    let folder = places.identity(name);
    let pair = identity::read(&folder).map_err(forwarder::Error::from)?;
    let (facts, pem, whose) = match proof::anchor(places, name).map_err(Failed::new)? {
        Anchor::Authority(pem) => {
            let (_, facts) = identity::Authority::certificate(places).map_err(forwarder::Error::from)?;
            (facts, pem, "this local CA; it stays the same when certificates are renewed")
        }
        Anchor::Exactly(_) => {
            let path = folder.join("cert.pem");
            let pem = fs::read_to_string(&path).map_err(store::Error::io(&path, "read"))?;
            (pair.facts.clone(), pem, "the authority of this certificate, or itself")
        }
    };
    if json {
        print_document(name, &facts, &pair.facts, &pem);
        return Ok(0);
    }
    eprintln!("Clients of {name} must trust {whose}");
    eprintln!("  subject     {}, {} to {}", facts.subject, facts.not_before.date(), facts.not_after.date());
    eprintln!("  SHA-256     {}", facts.fingerprint);
    eprintln!("  Thumbprint  {}  (SHA-1, as Windows shows it)", facts.thumbprint);
    eprintln!("  vouches     {} (certificate to {})", pair.facts.names_text(), pair.facts.not_after.date());
    say!("{}", pem.trim_end());
    Ok(0)
}

fn print_document(name: &Name, facts: &Facts, leaf: &Facts, pem: &str) {
    super::print_json(&Document {
        schema: 1,
        ok: true,
        name: name.to_string(),
        subject: &facts.subject,
        not_after: super::rfc3339(facts.not_after),
        sha256: facts.fingerprint.to_string(),
        thumbprint: &facts.thumbprint,
        vouches: &leaf.names,
        pem,
    });
}

fn renew(places: &Places, names: &[Name], force: bool) -> Done {
    let _lock = super::lock(places)?;
    let group = service::group_of_service().filter(|_| places.are_system());
    let mut worst = Ok(0);
    for name in names {
        match store::load(places, name)
            .map_err(Failed::from)
            .and_then(|settings| identities::renew(places, name, &settings, force, group))
        {
            Ok(done) => step(Word::Ok, format!("{name}: {done}")),
            Err(failed) if names.len() == 1 => return Err(failed),
            // One forwarder's trouble must not keep the others from being renewed.
            Err(failed) => {
                let whose = format!("{name}: ");
                step(Word::Fail, format!("{whose}{}", failed.message().trim_start_matches(&whose)));
                worst = Err(Failed::new("not all certificates could be renewed"));
            }
        }
    }
    worst
}
