//! Flags that several commands share, and the settings they mean.

use std::path::PathBuf;

use clap::Args;

use crate::config::places::{CONFIG_DIR, STATE_DIR};
use crate::config::{Draft, Places};

/// Where settings and state live.
#[derive(Args)]
pub struct PlacesFlags {
    /// Folder of the settings
    #[arg(long, value_name = "DIR", env = "EWSBRIDGE_CONFIG_DIR", default_value = CONFIG_DIR, global = true, hide_env_values = true)]
    config_dir: PathBuf,
    /// Folder of generated keys and certificates
    #[arg(long, value_name = "DIR", env = "EWSBRIDGE_STATE_DIR", default_value = STATE_DIR, global = true, hide_env_values = true)]
    state_dir: PathBuf,
}

impl PlacesFlags {
    /// The folders to use.
    pub fn places(&self) -> Places {
        Places { config: self.config_dir.clone(), state: self.state_dir.clone() }
    }
}

/// How the target is spoken to and judged.
#[derive(Args, Default)]
pub struct TargetFlags {
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
}

impl TargetFlags {
    /// Writes what was given into a draft.
    pub fn write(&self, draft: &mut Draft) {
        let path = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        draft.set_some("ca", self.ca.as_ref().map(path));
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
    }
}
