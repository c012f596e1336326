//! Cache first, then the service; what the service says replaces what is in the cache only if it is newer and good.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use cocoon_attestation::{About, Endorsement, EndorsementBundle, EndorsementKind, UnixTime};

use super::cache::{Cache, Entry, write_whole};
use super::http::{Answer, Client, Failure};
use super::list::refresh_at;
use super::wanted::{self, Services, Wanted};
use super::{EndorsementError, Sources};

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Requests for one thing, the first included.
    pub attempts: u32,
    /// Before the second request; twice as long before each further one, and up to half of it more by chance.
    pub delay: Duration,
}

/// Fetches what evidence needs.
#[derive(Debug)]
pub struct Fetcher {
    /// Where things lie.
    pub cache: Cache,
    /// Whom to ask.
    pub services: Services,
    /// How; `None`: nobody is asked.
    pub client: Option<Client>,
    /// How often.
    pub retry: Retry,
    /// The time.
    pub now: UnixTime,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Everything that the evidence needs, without repetition.
    pub bundle: EndorsementBundle,
    /// Requests that were sent.
    pub requests: u32,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl Fetcher {
    /// Finds everything for `sources`.
    ///
    /// # Errors
    /// The first thing that could not be had: nothing that was had before is lost, it is in the cache.
    pub async fn fetch(&self, sources: &Sources) -> Result<Fetched, EndorsementError> {
        let evidence = sources.read()?;
        let mut out = Fetched::default();
        let mut open = evidence.wanted(&self.services)?;
        let mut asked: Vec<(String, Option<Vec<u8>>)> = Vec::new();
        open.reverse();
        while let Some(wanted) = open.pop() {
            let question = (wanted.url.clone(), wanted.body.clone());
            if asked.contains(&question) {
                continue;
            }
            asked.push(question);
            for item in self.have(&wanted, &mut out).await? {
                if item.kind == EndorsementKind::NvidiaRim {
                    open.extend(wanted::of_rim(&item.bytes, &self.services)?);
                }
                if !out.bundle.0.contains(&item) {
                    out.bundle.0.push(item);
                }
            }
        }
        Ok(out)
    }

    /// From the cache if that is fresh, else from the service, else from the cache if that is still good.
    async fn have(&self, wanted: &Wanted, out: &mut Fetched) -> Result<Vec<Endorsement>, EndorsementError> {
        let cached = self.cached(wanted)?;
        let is_fresh = |entry: &Entry| self.now < refresh_at(&entry.about);
        if let Some(all) = &cached
            && all.iter().all(is_fresh)
        {
            return Ok(items(all));
        }
        let failed = match self.ask(wanted, &mut out.requests).await {
            Ok(new) => return self.replace(wanted, cached, new, &mut out.warnings),
            Err(failed) => failed,
        };
        match cached.filter(|all| all.iter().all(|entry| self.now <= entry.about.not_after)) {
            Some(all) => {
                let until = all.iter().map(|entry| entry.about.not_after).min().unwrap_or(self.now);
                out.warnings.push(format!("{failed}; the one in the cache is good until {until}"));
                Ok(items(&all))
            }
            None => Err(failed),
        }
    }

    fn cached(&self, wanted: &Wanted) -> Result<Option<Vec<Entry>>, EndorsementError> {
        let find = |(kind, subject): &(EndorsementKind, String)| {
            self.cache.find(*kind, subject, wanted.name.as_deref())
        };
        wanted.expected.iter().map(find).collect()
    }

    /// Asks until there is an answer, and reads it.
    async fn ask(
        &self,
        wanted: &Wanted,
        requests: &mut u32,
    ) -> Result<Vec<(Endorsement, About)>, EndorsementError> {
        let (what, url) = (wanted.what.clone(), wanted.url.clone());
        let Some(client) = &self.client else {
            let why = "not asked (--offline), and there is none in the cache that is good".to_owned();
            return Err(EndorsementError::Unreachable { what, url, why });
        };
        let mut delay = self.retry.delay;
        for attempt in 1..=self.retry.attempts {
            *requests += 1;
            let (why, wait) = match client.ask(&wanted.url, wanted.body.clone()).await {
                Ok(answer) => {
                    return self.read(wanted, &answer).map_err(|why| EndorsementError::Refused {
                        what,
                        url,
                        why,
                    });
                }
                Err(Failure::Final(why)) => return Err(EndorsementError::Refused { what, url, why }),
                Err(Failure::Passing { why, wait }) => (why, wait),
            };
            if attempt == self.retry.attempts {
                let why = format!("{why}, {attempt} times");
                return Err(EndorsementError::Unreachable { what, url, why });
            }
            tokio::time::sleep(wait.unwrap_or_else(|| jittered(delay))).await;
            delay = delay.saturating_mul(2);
        }
        let why = "not asked at all".to_owned();
        Err(EndorsementError::Unreachable { what, url, why })
    }

    /// Everything that was asked for, none of it over.
    fn read(&self, wanted: &Wanted, answer: &Answer) -> Result<Vec<(Endorsement, About)>, String> {
        let with_about = |item: Endorsement| {
            let about = item.about().map_err(|e| e.to_string())?;
            if self.now > about.not_after {
                return Err(format!("the service answers with what expired at {}", about.not_after));
            }
            Ok((item, about))
        };
        wanted.read(answer)?.into_iter().map(with_about).collect()
    }

    /// Keeps what is not older than what is there.
    fn replace(
        &self,
        wanted: &Wanted,
        cached: Option<Vec<Entry>>,
        new: Vec<(Endorsement, About)>,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Endorsement>, EndorsementError> {
        let older =
            |old: &[Entry]| old.iter().zip(&new).any(|(old, (_, new))| new.not_before < old.about.not_before);
        if let Some(old) = cached.filter(|old| older(old))
            && old.iter().all(|entry| self.now <= entry.about.not_after)
        {
            warnings.push(format!(
                "{}: {} serves an older one than is in the cache, which is kept",
                wanted.what, wanted.url
            ));
            return Ok(items(&old));
        }
        for (item, about) in &new {
            self.cache.keep(item, about, wanted.name.as_deref())?;
        }
        Ok(new.into_iter().map(|(item, _)| item).collect())
    }
}

impl Fetched {
    /// Writes the file that an enclave staples.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), EndorsementError> {
        write_whole(path, &self.bundle.encode())
    }
}

fn items(entries: &[Entry]) -> Vec<Endorsement> {
    entries.iter().map(|entry| entry.endorsement.clone()).collect()
}

/// Up to half as long again: hosts that lost a service together do not come back together. The standard library's randomness will do.
fn jittered(delay: Duration) -> Duration {
    let random = RandomState::new().hash_one(0);
    let share = f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    delay.mul_f64(1.0 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::super::wanted::Shape;
    use super::*;

    fn edition(issued: u64) -> (Endorsement, About) {
        let about = About {
            subject: "x".to_owned(),
            not_before: UnixTime(issued),
            not_after: UnixTime(issued + 100),
        };
        (Endorsement { kind: EndorsementKind::AmdCrl, bytes: issued.to_be_bytes().to_vec() }, about)
    }

    #[test]
    fn an_older_edition_does_not_replace_a_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let fetcher = Fetcher {
            cache: Cache::open(folder.path().join("cache")).unwrap(),
            services: Services::default(),
            client: None,
            retry: Retry { attempts: 1, delay: Duration::ZERO },
            now: UnixTime(150),
        };
        let wanted = Wanted {
            what: "a list".to_owned(),
            url: "https://example.com/".to_owned(),
            body: None,
            expected: vec![(EndorsementKind::AmdCrl, "x".to_owned())],
            shape: Shape::Plain,
            name: None,
        };
        let after = |in_cache: u64, served: u64| {
            let (endorsement, about) = edition(in_cache);
            let cached = vec![Entry { endorsement, about, name: String::new() }];
            let mut warnings = Vec::new();
            let kept = fetcher.replace(&wanted, Some(cached), vec![edition(served)], &mut warnings).unwrap();
            (kept == [edition(in_cache).0], warnings.len())
        };
        assert_eq!(after(120, 110), (true, 1));
        assert_eq!(after(110, 120), (false, 0));
        // The one in the cache is over: an older one that is not cannot be, but is better than none.
        assert_eq!(after(40, 30), (false, 0));
    }

    #[test]
    fn delays_grow_by_at_most_half() {
        for _ in 0..100 {
            let delay = jittered(Duration::from_secs(2));
            assert!((2.0..=3.0).contains(&delay.as_secs_f64()), "{delay:?}");
        }
    }
}
