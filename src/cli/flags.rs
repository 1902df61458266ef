//! Flags that several commands share, and the settings they mean.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failed::{Failed, code};
use super::talk;

use crate::config::places::{CONFIG_DIR, STATE_DIR};
use crate::config::{Draft, Places, store};

/// Where settings and state live.
#[derive(Args)]
pub(super) struct PlacesFlags {
    /// Folder of the settings
    #[arg(long, value_name = "DIR", env = "EWSBRIDGE_CONFIG_DIR", default_value = CONFIG_DIR, global = true, hide_env_values = true)]
    config_dir: PathBuf,
    /// Folder of generated keys and certificates
    #[arg(long, value_name = "DIR", env = "EWSBRIDGE_STATE_DIR", default_value = STATE_DIR, global = true, hide_env_values = true)]
    state_dir: PathBuf,
}

impl PlacesFlags {
    /// The folders to use.
    pub(super) fn places(&self) -> Places {
        Places { config: self.config_dir.clone(), state: self.state_dir.clone() }
    }
}

/// How the target is spoken to and judged.
#[derive(Args, Default)]
pub(super) struct TargetFlags {
    /// PEM file of the authorities that vouch for the target
    #[arg(long, value_name = "FILE", help_heading = "Trust")]
    ca: Option<PathBuf>,
    /// Accept exactly this certificate, whatever its names and dates (repeatable)
    #[arg(long, value_name = "sha256:HEX", help_heading = "Trust")]
    pub pin: Vec<String>,
    /// Accept any certificate: anyone on the path can read and change everything
    #[arg(long, help_heading = "Trust")]
    insecure: bool,
    /// Accept this fault of the certificate: sha1, rsa1024, expired, wrong-name, ip-in-cn (repeatable)
    #[arg(long, value_name = "FAULT", value_delimiter = ',', help_heading = "Trust")]
    accept: Vec<String>,
    /// The name that the target's certificate must carry
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    server_name: Option<String>,
    /// Server name to send: auto, off or a name
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    sni: Option<String>,
    /// Oldest TLS version to speak to the target
    #[arg(long, value_name = "VERSION", help_heading = "Target")]
    min_tls: Option<String>,
    /// Newest TLS version to speak to the target
    #[arg(long, value_name = "VERSION", help_heading = "Target")]
    max_tls: Option<String>,
    /// OpenSSL cipher list for the target; 3DES and RC4 only if named
    #[arg(long, value_name = "LIST", help_heading = "Target")]
    ciphers: Option<String>,
    /// auto: find out what the target needs; manual: speak as the flags say
    #[arg(long, value_name = "HOW", value_parser = ["auto", "manual"], help_heading = "Target")]
    outbound: Option<String>,
    /// OpenSSL's level for ciphers and signatures, 0 to 2
    #[arg(long, value_name = "LEVEL", help_heading = "Target")]
    security_level: Option<i64>,
    /// Send a ClientHello without any extension (TLS 1.1 at most)
    #[arg(long, help_heading = "Target")]
    no_extensions: bool,
    /// Send no empty record before each one in TLS 1.0
    #[arg(long, help_heading = "Target")]
    no_empty_fragments: bool,
    /// A full TLS handshake for each connection to the target
    #[arg(long, help_heading = "Target")]
    no_resumption: bool,
    /// Certificate (PEM) to show if the target asks for a client certificate
    #[arg(long, value_name = "FILE", requires = "auth_key", help_heading = "Target")]
    auth_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "auth_cert", help_heading = "Target")]
    auth_key: Option<PathBuf>,
    /// Allow what is weak: no-rfc5746, dhe, 3des, rc4; without a list all four
    #[arg(
        long,
        value_name = "LIST",
        help_heading = "Target",
        value_delimiter = ',',
        num_args = 0..,
        require_equals = true,
        default_missing_value = "no-rfc5746,dhe,3des,rc4"
    )]
    pub allow_weak: Vec<String>,
    /// Time for look-up and TCP connection to the target
    #[arg(long, value_name = "TIME", help_heading = "Deadlines")]
    connect_timeout: Option<String>,
    /// Time for each TLS handshake
    #[arg(long, value_name = "TIME", help_heading = "Deadlines")]
    handshake_timeout: Option<String>,
}

impl TargetFlags {
    /// `auto` or `manual`, if it was said.
    pub(super) fn outbound(&self) -> Option<&str> {
        self.outbound.as_deref()
    }

    /// Writes what was given into a draft.
    pub(super) fn write(&self, draft: &mut Draft) {
        draft.set_some("ca", self.ca.as_deref().map(absolute));
        draft.set_list("pin", &self.pin);
        if self.insecure {
            draft.set("insecure", true);
        }
        draft.set_list("accept", &self.accept);
        draft.set_some("server_name", self.server_name.clone());
        draft.set_some("sni", self.sni.clone());
        draft.set_some("min_tls", self.min_tls.clone());
        draft.set_some("max_tls", self.max_tls.clone());
        draft.set_some("ciphers", self.ciphers.clone());
        draft.set_some("security_level", self.security_level);
        if self.no_extensions {
            draft.set("extensions", false);
        }
        if self.no_empty_fragments {
            draft.set("empty_fragments", false);
        }
        draft.set_list("allow_weak", &self.allow_weak);
        if self.no_resumption {
            draft.set("resumption", false);
        }
        draft.set_some("auth_cert", self.auth_cert.as_deref().map(absolute));
        draft.set_some("auth_key", self.auth_key.as_deref().map(absolute));
        draft.set_some("connect_timeout", self.connect_timeout.clone());
        draft.set_some("handshake_timeout", self.handshake_timeout.clone());
    }
}

/// What the forwarder serves to clients.
#[derive(Args, Default)]
pub(super) struct IdentityFlags {
    /// One more name or address for the forwarder's own certificate (repeatable)
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Own certificate")]
    san: Vec<String>,
    /// Serve this certificate (PEM) instead of our own; needed with Extended Protection
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "pfx", help_heading = "Own certificate")]
    cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Own certificate")]
    key: Option<PathBuf>,
    /// Serve the certificate and key of this PFX file, as Exchange exports it
    #[arg(long, value_name = "FILE", help_heading = "Own certificate")]
    pfx: Option<PathBuf>,
    /// File whose first line is the PFX file's password; asked for otherwise
    #[arg(long, value_name = "FILE", requires = "pfx", help_heading = "Own certificate")]
    pfx_password_file: Option<PathBuf>,
}

/// What the target is shown if it asks for a client certificate, from a PFX file.
#[derive(Args, Default)]
pub(super) struct CredentialFlags {
    /// The same from a PFX file
    #[arg(long, value_name = "FILE", conflicts_with = "auth_cert", help_heading = "Target")]
    auth_pfx: Option<PathBuf>,
    /// File whose first line is its password; asked for otherwise
    #[arg(long, value_name = "FILE", requires = "auth_pfx", help_heading = "Target")]
    auth_pfx_password_file: Option<PathBuf>,
}

impl CredentialFlags {
    /// The PFX file that was given, with its password from file or terminal.
    ///
    /// # Errors
    /// The password file can't be read, or nobody can be asked.
    pub(super) fn pfx(&self, no_input: bool) -> Result<Option<Pfx>, Failed> {
        let file = ("--auth-pfx-password-file", self.auth_pfx_password_file.as_deref());
        self.auth_pfx.clone().map(|pfx| with_password(pfx, file, no_input)).transpose()
    }
}

/// A PFX file and its password.
pub(super) struct Pfx {
    /// The file.
    pub file: PathBuf,
    /// Its password; never printed.
    pub password: String,
}

impl IdentityFlags {
    /// Writes what was given into a draft.
    pub(super) fn write(&self, draft: &mut Draft) {
        draft.set_list("san", &self.san);
        draft.set_some("cert", self.cert.as_deref().map(absolute));
        draft.set_some("key", self.key.as_deref().map(absolute));
    }

    /// The PFX file that was given, with its password from file or terminal.
    ///
    /// # Errors
    /// The password file can't be read, or nobody can be asked.
    pub(super) fn pfx(&self, no_input: bool) -> Result<Option<Pfx>, Failed> {
        let file = ("--pfx-password-file", self.pfx_password_file.as_deref());
        self.pfx.clone().map(|pfx| with_password(pfx, file, no_input)).transpose()
    }
}

/// A PFX file with its password: from the file that a flag names, or asked for.
fn with_password(file: PathBuf, (flag, path): (&str, Option<&Path>), no_input: bool) -> Result<Pfx, Failed> {
    let password = match path {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(store::Error::io(path, "read"))?;
            text.lines().next().unwrap_or_default().to_owned()
        }
        None if talk::can_ask(no_input) => rpassword::prompt_password(format!("Password of {}: ", file.display()))
            .map_err(|error| Failed::new(format!("{}: password: {error}", file.display())))?,
        None => {
            let failed = Failed::with(code::UNDECIDED, format!("{}: its password is needed", file.display()));
            return Err(failed.hint(format!("{flag} FILE")));
        }
    };
    Ok(Pfx { file, password })
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
