//! Commands about domains and aliases.

use posthouse_mail::{Address, Domain, DomainId};
use posthouse_storage::address::{self, Alias};
use posthouse_storage::domain::{self, DkimAlgorithm, LocalDomain};
use posthouse_storage::{Error, Fence, keys};

use super::account::parse;
use super::{AdminRequest, AdminResult, AliasView, DkimKeyView, DnsRecordView, DomainChange, DomainView, view, words};
use crate::clock;
use crate::domain::DomainError;
use crate::node::Services;

/// Aliases shown in one answer.
const LIST_MAX: usize = 100_000;

pub(super) async fn run(services: &Services, request: AdminRequest) -> AdminResult {
    match request {
        AdminRequest::DomainCreate { name } => view(&create(services, &name).await?),
        AdminRequest::DomainList => {
            let mut views = Vec::new();
            for domain in domain::list(&services.store).await.map_err(words)? {
                views.push(show(services, &domain).await?);
            }
            view(&views)
        }
        AdminRequest::DomainShow { name } => view(&show(services, &find(services, &name).await?).await?),
        AdminRequest::DomainSet { name, change } => view(&set(services, &name, change).await?),
        AdminRequest::DomainDelete { name } => {
            let id = find(services, &name).await?.id;
            match domain::delete(&services.store, fence(services, id), id).await {
                Err(Error::Exists) => Err(format!("{name} still has accounts: delete them first")),
                outcome => view(&outcome.map_err(words)?),
            }
        }
        AdminRequest::DomainDns { name } => view(&dns(services, &name).await?),
        AdminRequest::DomainRotateKeys { name } => view(&rotate_keys(services, &name).await?),
        AdminRequest::DomainRemoveKey { name, selector } => view(&remove_key(services, &name, &selector).await?),
        AdminRequest::AliasCreate { address, targets } => {
            if find_alias(services, &address).await.is_ok() {
                return Err(format!("{address} is an alias already: change it with `alias set`"));
            }
            view(&set_alias(services, &address, &targets).await?)
        }
        AdminRequest::AliasSet { address, targets } => {
            find_alias(services, &address).await?;
            view(&set_alias(services, &address, &targets).await?)
        }
        AdminRequest::AliasShow { address } => view(&alias_view(&find_alias(services, &address).await?)),
        AdminRequest::AliasList { domain } => view(&list_aliases(services, domain).await?),
        AdminRequest::AliasDelete { address } => {
            let alias = find_alias(services, &address).await?;
            let home = home(services, &alias.address).await?;
            let done = address::delete_alias(&services.store, fence(services, home), &alias.address).await;
            view(&done.map_err(words)?)
        }
        _ => Err("not a command about domains".to_owned()),
    }
}

fn fence(services: &Services, id: DomainId) -> Fence {
    services.placement.fence(keys::domain_shard(id))
}

async fn find(services: &Services, name: &str) -> Result<LocalDomain, String> {
    let parsed = Domain::parse(name).map_err(|error| format!("{name}: {error}"))?;
    let found = domain::by_name(&services.store, &parsed).await.map_err(words)?;
    found.ok_or_else(|| format!("{name} is not a domain of this site"))
}

async fn create(services: &Services, name: &str) -> Result<DomainView, String> {
    let parsed = Domain::parse(name).map_err(|error| format!("{name}: {error}"))?;
    let id = DomainId::new(rand::random());
    let created = domain::create(&services.store, fence(services, id), id, &parsed, clock::now()).await;
    let domain = match created {
        Ok(domain) => domain,
        // A creation that was cut short before its keys were made is completed by repeating it.
        Err(Error::Exists) if !has_keys(services, name).await? => find(services, name).await?,
        Err(Error::Exists) => return Err(format!("{name} is a domain of this site already")),
        Err(error) => return Err(words(error)),
    };
    services.domains.ensure_keys(domain.id).await.map_err(words)?;
    show(services, &domain).await
}

async fn has_keys(services: &Services, name: &str) -> Result<bool, String> {
    let id = find(services, name).await?.id;
    domain::has_dkim_key(&services.store, id).await.map_err(words)
}

async fn set(services: &Services, name: &str, change: DomainChange) -> Result<DomainView, String> {
    let id = find(services, name).await?.id;
    if let Some(text) = change.catch_all {
        let catch_all = if text.is_empty() { None } else { Some(parse(&text)?) };
        services.domains.set_catch_all(id, catch_all.as_ref()).await.map_err(words)?;
    }
    show(services, &find(services, name).await?).await
}

async fn rotate_keys(services: &Services, name: &str) -> Result<DomainView, String> {
    let domain = find(services, name).await?;
    match services.domains.rotate_keys(domain.id).await {
        Err(DomainError::Store(Error::Exists)) => Err(format!("the keys of {name} were made or rotated today already")),
        outcome => outcome.map_err(words),
    }?;
    show(services, &domain).await
}

async fn remove_key(services: &Services, name: &str, selector: &str) -> Result<DomainView, String> {
    let domain = find(services, name).await?;
    let parsed = Domain::parse(selector).map_err(|error| format!("{selector}: {error}"))?;
    match services.domains.remove_key(domain.id, &parsed).await {
        Err(DomainError::Store(Error::NotFound)) => Err(format!("{name} has no key {selector}: see `domain show`")),
        outcome => outcome.map_err(words),
    }?;
    show(services, &domain).await
}

async fn show(services: &Services, domain: &LocalDomain) -> Result<DomainView, String> {
    let keys = services.domains.keys(domain.id).await.map_err(words)?;
    let algorithm = |algorithm| match algorithm {
        DkimAlgorithm::Rsa => "rsa-sha256",
        DkimAlgorithm::Ed25519 => "ed25519-sha256",
    };
    let dkim = keys
        .iter()
        .map(|key| DkimKeyView { selector: key.selector.to_string(), algorithm: algorithm(key.algorithm).to_owned() });
    Ok(DomainView {
        name: domain.name.to_string(),
        id: domain.id.to_string(),
        catch_all: domain.catch_all.as_ref().map(Address::to_string),
        dkim: dkim.collect(),
    })
}

async fn dns(services: &Services, name: &str) -> Result<Vec<DnsRecordView>, String> {
    let id = find(services, name).await?.id;
    let records = services.domains.dns_records(id).await.map_err(words)?;
    let shown = |record: crate::domain::DnsRecord| DnsRecordView {
        name: record.name,
        kind: record.kind.to_string(),
        value: record.value,
    };
    Ok(records.into_iter().map(shown).collect())
}

async fn home(services: &Services, address: &Address) -> Result<DomainId, String> {
    Ok(find(services, address.domain.as_str()).await?.id)
}

async fn find_alias(services: &Services, address: &str) -> Result<Alias, String> {
    let found = address::alias(&services.store, &parse(address)?).await.map_err(words)?;
    found.ok_or_else(|| format!("there is no alias {address}"))
}

async fn set_alias(services: &Services, address: &str, targets: &[String]) -> Result<AliasView, String> {
    let targets: Vec<Address> = targets.iter().map(|target| parse(target)).collect::<Result<_, _>>()?;
    let max = services.settings.mailbox.alias_targets_max;
    if targets.len() > max {
        return Err(format!("an alias has at most {max} targets (mailbox.alias_targets_max)"));
    }
    let alias = Alias { address: parse(address)?, targets };
    let home = home(services, &alias.address).await?;
    match address::set_alias(&services.store, fence(services, home), &alias).await {
        Ok(()) => Ok(alias_view(&alias)),
        Err(Error::Exists) => Err(format!("{address} is taken by an account")),
        Err(error) => Err(words(error)),
    }
}

async fn list_aliases(services: &Services, name: Option<String>) -> Result<Vec<AliasView>, String> {
    let domains = match name {
        Some(name) => vec![find(services, &name).await?],
        None => domain::list(&services.store).await.map_err(words)?,
    };
    let mut views = Vec::new();
    for domain in domains {
        let aliases = address::aliases(&services.store, domain.id, None, LIST_MAX).await.map_err(words)?;
        views.extend(aliases.iter().map(alias_view));
    }
    Ok(views)
}

fn alias_view(alias: &Alias) -> AliasView {
    AliasView { address: alias.address.to_string(), targets: alias.targets.iter().map(Address::to_string).collect() }
}
