//! Where settings and state live on disk.
//!
//! ```text
//! /etc/ewsbridge/forwarders/NAME.toml                  the admin's: one forwarder a file
//! /etc/ewsbridge/forwarders/NAME.ca.pem                who vouches for its target (add --ca)
//! /var/lib/ewsbridge/ca/ca.pem, ca.key                 the local CA; root alone reads the key
//! /var/lib/ewsbridge/identity/NAME/cert.pem, key.pem   what the forwarder NAME serves
//! /var/lib/ewsbridge/credential/NAME/cert.pem, key.pem what it shows to a target that asks
//! /run/ewsbridge-NAME/control                          the running forwarder's control socket
//! ```

use std::path::{Path, PathBuf};

use super::Name;

/// The folders in use; the defaults, or what flags and environment say.
#[derive(Clone, Debug)]
pub struct Places {
    /// Settings, `/etc/ewsbridge`.
    pub config: PathBuf,
    /// Generated keys and certificates, `/var/lib/ewsbridge`.
    pub state: PathBuf,
}

/// The settings' folder unless a flag or `EWSBRIDGE_CONFIG_DIR` names another.
pub const CONFIG_DIR: &str = "/etc/ewsbridge";
/// The state's folder unless a flag or `EWSBRIDGE_STATE_DIR` names another.
pub const STATE_DIR: &str = "/var/lib/ewsbridge";

impl Places {
    /// Whether these are the system's own folders, which the packaged unit reads.
    pub fn are_system(&self) -> bool {
        self.config == Path::new(CONFIG_DIR) && self.state == Path::new(STATE_DIR)
    }

    /// The folder of the forwarders' files.
    pub fn forwarders(&self) -> PathBuf {
        self.config.join("forwarders")
    }

    /// A forwarder's file.
    pub fn forwarder(&self, name: &Name) -> PathBuf {
        self.forwarders().join(format!("{name}.toml"))
    }

    /// The copy of the authorities that vouch for a forwarder's target.
    pub fn authorities(&self, name: &Name) -> PathBuf {
        self.forwarders().join(format!("{name}.ca.pem"))
    }

    /// The copy of the authorities that vouch for a forwarder's clients.
    pub fn client_authorities(&self, name: &Name) -> PathBuf {
        self.forwarders().join(format!("{name}.client-ca.pem"))
    }

    /// The folder of the local CA.
    pub fn authority(&self) -> PathBuf {
        self.state.join("ca")
    }

    /// The folder of the certificate and key that a forwarder shows to a target that asks for one.
    pub fn credential(&self, name: &Name) -> PathBuf {
        self.state.join("credential").join(name.as_str())
    }

    /// The control socket of a running forwarder, in a folder that systemd makes for it; beside the state
    /// where that is not the system's own.
    pub fn control(&self, name: &Name) -> PathBuf {
        if self.are_system() {
            Path::new("/run").join(format!("ewsbridge-{name}")).join("control")
        } else {
            self.state.join("control").join(name.as_str())
        }
    }

    /// The folder of the certificate and key that a forwarder serves.
    pub fn identity(&self, name: &Name) -> PathBuf {
        self.state.join("identity").join(name.as_str())
    }
}
