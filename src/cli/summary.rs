//! What `add` prints at its end: what to enter where, and what is left to do.

use std::net::SocketAddr;
use std::time::Duration;

use super::identities::Made;
use super::{firewall, talk};
use crate::config::values::Listen;
use crate::config::{Name, Settings};

/// Prints the result of `add` to stdout.
pub(super) fn print(name: &Name, settings: &Settings, made: &Made, time: Duration, systemd: bool) {
    let port = settings.listen.port();
    let first = made.facts.names.first().map_or("this-host", String::as_str);
    let host = match settings.listen {
        Listen::At(address) if !address.ip().is_unspecified() => SocketAddr::new(address.ip(), port).to_string(),
        _ => format!("{first}:{port}"),
    };
    println!();
    println!("{name} is ready in {:.1} s: clients -> {host} -> {}", time.as_secs_f64(), settings.target);
    println!("Reached by: {}", firewall::who_reaches(settings.listen));
    println!("NEXT STEPS");
    let mut steps = vec![form(&host, made.own)];
    if made.own {
        steps.push(format!("Print the certificate to paste: ewsbridge cert show {name}"));
    } else {
        steps
            .push(format!("Let clients find {first} at this host (DNS, or their /etc/hosts): its certificate says so"));
    }
    steps.extend(firewall::open_port(settings.listen));
    if !systemd {
        steps.push(format!("No service was started, so start it yourself: ewsbridge run {name}"));
    }
    for (index, step) in steps.iter().enumerate() {
        println!("  {}. {step}", index + 1);
    }
    let journal = if systemd { format!("      journalctl -u ewsbridge@{name}") } else { String::new() };
    println!("Later:   ewsbridge check {name}{journal}");
}

/// The fields of the mail system's form, by the names that they have there.
fn form(host: &str, own: bool) -> String {
    let certificate = if own { "the text that step 2 prints" } else { "the CA that issued Exchange's certificate" };
    let fields = [
        ("Адрес сервера EWS", "EWS server address", host),
        ("Пропустить проверку SSL-сертификата", "skip the check", "off"),
        ("SSL-сертификат сервера (или корневой)", "certificate", certificate),
    ];
    let mut text = "In the calendar migration form enter".to_owned();
    for (russian, english, value) in fields {
        let label = if talk::is_utf8() { format!("{russian} ({english})") } else { english.to_owned() };
        text += &format!("\n       {label:<54}{value}");
    }
    text
}
