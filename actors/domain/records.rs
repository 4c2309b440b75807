//! What the zone of a local domain should say, so that its mail arrives here and is believed elsewhere.

use posthouse_filter::keys::public_record;
use posthouse_mail::Domain;
use posthouse_storage::domain::DkimKey;

use super::signing_algorithm;

/// One record; the value of a TXT record is its whole text, without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsRecord {
    pub name: String,
    pub kind: &'static str,
    pub value: String,
}

/// The records of a domain whose mail goes through `host_name`.
pub(super) fn of_domain(
    domain: &Domain,
    host_name: &str,
    keys: &[DkimKey],
) -> Result<Vec<DnsRecord>, posthouse_filter::Error> {
    let record = |name: String, kind, value| DnsRecord { name, kind, value };
    let mut records = vec![
        record(domain.to_string(), "MX", format!("10 {host_name}.")),
        // RFC 7208 §5.4: whoever receives for the domain sends for it too, and nobody else does.
        record(domain.to_string(), "TXT", "v=spf1 mx -all".to_owned()),
    ];
    for key in keys {
        let name = format!("{}._domainkey.{domain}", key.selector);
        records.push(record(name, "TXT", public_record(signing_algorithm(key.algorithm), &key.private_key)?));
    }
    let policy = format!("v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}");
    records.push(record(format!("_dmarc.{domain}"), "TXT", policy));
    Ok(records)
}
