//! Names: which ones a certificate may carry, and which ones this machine has.

use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::mpsc;
use std::time::Duration;
use std::{ptr, thread};

use nix::libc;

use super::Error;

/// A name as a certificate carries it: an IP address in its usual form, or a DNS name in lower case without final dot.
///
/// A wildcard may be the leftmost label. An underscore passes: Windows domains have them.
///
/// # Errors
/// [`Error::Name`] for anything else, letters beyond ASCII included.
pub fn normal(text: &str) -> Result<String, Error> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let labels: Vec<&str> = name.strip_prefix("*.").unwrap_or(&name).split('.').collect();
    let label = |label: &&str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    // A last label of digits only would be read as a mistyped address.
    let numeric = labels.last().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let fits = name.len() <= 253 && labels.iter().all(label) && !numeric;
    if fits {
        Ok(name)
    } else {
        Err(Error::Name(text.chars().take(64).collect::<String>().escape_default().to_string()))
    }
}

/// This machine's names and addresses: the full name first, loopback last, each once, never empty.
///
/// Takes at most 2 s if the resolver is dead; then the full name is missing.
pub fn machine_names() -> Vec<String> {
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_default();
    let full = if host.contains('.') { None } else { canonical_name(&host) };
    sorted(full, &host, interface_addresses())
}

fn sorted(full: Option<String>, host: &str, addresses: Vec<IpAddr>) -> Vec<String> {
    // "localhost.localdomain" is how a resolver says that it knows no full name.
    let full = full.filter(|name| name.contains('.') && !name.starts_with("localhost"));
    let useful = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !(v4.is_link_local() || v4.is_unspecified() || v4.is_loopback()),
        IpAddr::V6(v6) => !(v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_loopback()),
    };
    let mut addresses: Vec<IpAddr> = addresses.into_iter().filter(useful).collect();
    addresses.sort();
    addresses.dedup();
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let own = full.into_iter().chain([host.to_owned()]);
    let addresses = addresses.iter().take(ADDRESSES_MAX).map(IpAddr::to_string);
    let all = own.chain(addresses).chain(["localhost".to_owned()]).chain(loopback.iter().map(IpAddr::to_string));
    merged(all)
}

/// The names in their order, normal and each once; those that no certificate may carry are left out.
pub(super) fn merged(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut merged = Vec::new();
    for name in names.into_iter().filter_map(|name| normal(&name).ok()) {
        if !merged.contains(&name) {
            merged.push(name);
        }
    }
    merged
}

fn interface_addresses() -> Vec<IpAddr> {
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(address).collect()
}

/// The full name that `/etc/hosts` or DNS gives to a host name, as `hostname -f` would find it.
///
/// The look-up can't be cancelled, so a late one is left behind in its thread.
fn canonical_name(host: &str) -> Option<String> {
    let host = CString::new(host).ok().filter(|host| !host.is_empty())?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("full name".to_owned()).spawn(move || sender.send(look_up(&host))).ok()?;
    receiver.recv_timeout(LOOK_UP).ok().flatten()
}

/// Asks the system's resolver, which alone knows about canonical names; std's look-up drops them.
#[allow(unsafe_code)]
fn look_up(host: &CStr) -> Option<String> {
    // SAFETY: all-zero is the documented "no hints"; `host` and `hints` live through the call. On
    // success `found` is a list of at least one entry, whose first `ai_canonname` is null or a C
    // string that lives until freeaddrinfo.
    unsafe {
        let mut hints: libc::addrinfo = std::mem::zeroed();
        hints.ai_flags = libc::AI_CANONNAME;
        hints.ai_socktype = libc::SOCK_STREAM;
        let mut found = ptr::null_mut();
        if libc::getaddrinfo(host.as_ptr(), ptr::null(), &raw const hints, &raw mut found) != 0 {
            return None;
        }
        let name = (*found).ai_canonname;
        let name = if name.is_null() { None } else { CStr::from_ptr(name).to_str().ok().map(str::to_owned) };
        libc::freeaddrinfo(found);
        name
    }
}

/// Longest wait for the machine's full name: glibc asks a dead DNS server for 10 s and more.
const LOOK_UP: Duration = Duration::from_secs(2);
/// Addresses put into one certificate; a container host may have thousands. The rest is left out, `--san` adds any.
const ADDRESSES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dns_names_and_addresses_become_names() {
        for (text, name) in [
            ("Mail.Corp.", "mail.corp"),
            ("exch_1", "exch_1"),
            ("*.corp", "*.corp"),
            ("xn--e1afmkfd.xn--p1ai", "xn--e1afmkfd.xn--p1ai"),
            ("10.0.0.5", "10.0.0.5"),
            ("FD00:0::2", "fd00::2"),
        ] {
            assert_eq!(normal(text).unwrap(), name);
        }
        let long = format!("{}.corp", "x".repeat(64));
        let longer = vec!["x".repeat(60); 5].join(".");
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "10.0.0",
            "10.0.0.256",
            "почта.рф",
            "a b",
            "a\n",
            "*",
            "a.*",
            "fe80::1%eth0",
            "a:443",
            &long,
            &longer,
        ] {
            assert!(normal(bad).is_err(), "{bad:?}");
        }
        let said = normal("a\u{1b}b").unwrap_err().to_string();
        assert_eq!(said, "name 'a\\u{1b}b': put into a certificate: not a DNS name or an IP address");
    }

    #[test]
    fn the_full_name_comes_first_and_link_local_addresses_stay_out() {
        let addresses = ["::1", "fe80::1", "fd00::2", "127.0.0.1", "10.20.0.7", "169.254.1.1", "10.20.0.7", "0.0.0.0"];
        let addresses = || addresses.iter().map(|address| address.parse().unwrap()).collect();
        let names = sorted(Some("mail.corp".to_owned()), "Mail", addresses());
        assert_eq!(names, ["mail.corp", "mail", "10.20.0.7", "fd00::2", "localhost", "127.0.0.1", "::1"]);
        let names = sorted(Some("localhost.localdomain".to_owned()), "bad name", Vec::new());
        assert_eq!(names, ["localhost", "127.0.0.1", "::1"]);
        assert_eq!(sorted(None, "localhost", Vec::new()), ["localhost", "127.0.0.1", "::1"]);
        let many = (0..100).map(|number| IpAddr::from([10, 0, 0, number])).collect();
        assert_eq!(sorted(None, "a", many).len(), 1 + ADDRESSES_MAX + 3);
    }

    #[test]
    fn this_machine_has_at_least_its_loopback_names() {
        let names = machine_names();
        assert!(["localhost", "127.0.0.1", "::1"].iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
        assert_eq!(look_up(c"no-such-host.invalid"), None);
    }
}
