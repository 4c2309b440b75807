//! S3-compatible object stores: how a client of a bucket is made, for large bodies and for backups alike.
//!
//! The library opens its own connections, which the rule about sockets names as its one exception.

use std::path::Path;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ClientOptions, RetryConfig};

use crate::error::Error;

/// Repeats of one request within its deadline.
const RETRIES_MAX: usize = 3;

/// A service as the configuration names it.
pub(crate) struct Service<'a> {
    /// The table of the settings, which messages name.
    pub table: &'static str,
    /// Empty: Amazon's.
    pub endpoint: &'a str,
    pub region: &'a str,
    /// Empty: that of the environment.
    pub access_key_id: &'a str,
    pub secret_key_file: &'a Path,
    pub timeout: Duration,
}

/// A client of a bucket. Nothing is sent yet.
pub(crate) fn client(bucket: &str, service: &Service<'_>) -> Result<AmazonS3, Error> {
    let Service { table, endpoint, region, timeout, .. } = *service;
    let key = access_key(service, |name| std::env::var(name).ok())?;
    let client = ClientOptions::new().with_timeout(timeout).with_connect_timeout(timeout);
    let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: timeout, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_virtual_hosted_style_request(false)
        .with_client_options(client.with_allow_http(endpoint.starts_with("http://")))
        .with_retry(retry)
        // One by one: not every service has the request that removes many.
        .with_disable_bulk_delete(true)
        .with_access_key_id(key.id)
        .with_secret_access_key(key.secret);
    if !endpoint.is_empty() {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(token) = key.token {
        builder = builder.with_token(token);
    }
    builder.build().map_err(|error| Error::Unavailable(format!("{table}: {error}")))
}

struct AccessKey {
    id: String,
    secret: String,
    /// Of a key that holds for some hours only.
    token: Option<String>,
}

/// The key of the configuration, or else of the environment. The library's own search would ask a service of Amazon's
/// machines, and on another machine wait for it.
fn access_key(service: &Service<'_>, environment: impl Fn(&str) -> Option<String>) -> Result<AccessKey, Error> {
    let Service { table, access_key_id: id, secret_key_file: file, .. } = *service;
    if !id.is_empty() {
        let secret = std::fs::read_to_string(file)
            .map_err(|error| Error::Key(format!("{table}.secret_key_file {}: {error}", file.display())))?;
        return Ok(AccessKey { id: id.to_owned(), secret: secret.trim().to_owned(), token: None });
    }
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    match (set("AWS_ACCESS_KEY_ID"), set("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => Ok(AccessKey { id, secret, token: set("AWS_SESSION_TOKEN") }),
        _ => Err(Error::Refused(format!(
            "no access key: set {table}.access_key_id and secret_key_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where the \
             node runs"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service<'a>(access_key_id: &'a str, secret_key_file: &'a Path) -> Service<'a> {
        let timeout = Duration::from_secs(1);
        Service { table: "t", endpoint: "", region: "r", access_key_id, secret_key_file, timeout }
    }

    #[test]
    fn a_key_is_that_of_the_configuration_then_that_of_the_environment() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "from a file\n").expect("written");
        let environment = |name: &str| Some(format!("{name} of the environment"));
        let key = access_key(&service("id", file.path()), environment).expect("a key");
        assert_eq!((key.id.as_str(), key.secret.as_str(), key.token), ("id", "from a file", None));
        let key = access_key(&service("", Path::new("")), environment).expect("a key");
        assert_eq!(key.id, "AWS_ACCESS_KEY_ID of the environment");
        assert_eq!(key.secret, "AWS_SECRET_ACCESS_KEY of the environment");
        assert_eq!(key.token.as_deref(), Some("AWS_SESSION_TOKEN of the environment"));
    }

    #[test]
    fn a_key_that_is_missing_is_told_with_what_to_do() {
        let half = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(|| "id".to_owned());
        let Err(Error::Refused(reason)) = access_key(&service("", Path::new("")), half) else { panic!("half a key") };
        assert!(reason.contains("t.access_key_id") && reason.contains("AWS_SECRET_ACCESS_KEY"), "{reason}");
        let gone = access_key(&service("id", Path::new("/nowhere/secret")), |_| None);
        assert!(matches!(gone, Err(Error::Key(reason)) if reason.contains("t.secret_key_file /nowhere/secret")));
    }
}
