//! EPYC generations, and AMD's keys for each, built in.

use std::sync::LazyLock;

use super::report::SigningKey;
use crate::x509::Certificate;

/// An EPYC generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[non_exhaustive]
pub enum Product {
    /// 7003. Its VCEK seed is extractable (arXiv 2605.12990): policies should not accept it.
    Milan,
    /// 9004, 8004.
    Genoa,
    /// 9005.
    Turin,
}

impl std::fmt::Display for Product {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// AMD's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// By CPUID family, model and stepping (Linux, arch/x86/kernel/cpu/amd.c).
    #[must_use]
    pub fn of_cpuid(cpuid: [u8; 3]) -> Option<Self> {
        match cpuid {
            [0x19, 0x00..=0x0f, _] => Some(Self::Milan),
            [0x19, 0x10..=0x1f | 0xa0..=0xaf, _] => Some(Self::Genoa),
            [0x1a, 0x00..=0x1f, _] => Some(Self::Turin),
            _ => None,
        }
    }

    /// By the common name of the key that issues VCEKs (`SEV-Genoa`) or VLEKs (`SEV-VLEK-Genoa`): AMD 57230 section 3.
    #[must_use]
    pub fn of_issuer(common_name: &str) -> Option<(Self, SigningKey)> {
        let of = |name: &str| Self::ALL.into_iter().find(|product| product.name() == name);
        if let Some(name) = common_name.strip_prefix("SEV-VLEK-") {
            return Some((of(name)?, SigningKey::Vlek));
        }
        Some((of(common_name.strip_prefix("SEV-")?)?, SigningKey::Vcek))
    }

    /// Bytes of hwID and of CHIP_ID that mean something.
    #[must_use]
    pub fn chip_id_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }

    /// The root of the product, as AMD publishes it.
    pub(crate) fn ark(self) -> Option<&'static Certificate> {
        BUILT_IN.iter().find(|keys| keys.product == self).map(|keys| &keys.ark)
    }

    /// The key between the root and keys of the kind `key`.
    pub(crate) fn intermediate(self, key: SigningKey) -> Option<&'static Certificate> {
        let keys = BUILT_IN.iter().find(|keys| keys.product == self)?;
        Some(match key {
            SigningKey::Vcek => &keys.ask,
            SigningKey::Vlek => &keys.asvk,
        })
    }
}

struct Keys {
    product: Product,
    ark: Certificate,
    ask: Certificate,
    asvk: Certificate,
}

/// Parsed once. A test holds that all three are there.
static BUILT_IN: LazyLock<Vec<Keys>> = LazyLock::new(|| {
    macro_rules! keys {
        ($product:ident, $name:literal) => {
            (|| {
                let ark = Certificate::from_der(include_bytes!(concat!("roots/ark_", $name, ".der"))).ok()?;
                let ask = Certificate::from_der(include_bytes!(concat!("roots/ask_", $name, ".der"))).ok()?;
                let asvk =
                    Certificate::from_der(include_bytes!(concat!("roots/asvk_", $name, ".der"))).ok()?;
                Some(Keys { product: Product::$product, ark, ask, asvk })
            })()
        };
    }
    [keys!(Milan, "milan"), keys!(Genoa, "genoa"), keys!(Turin, "turin")].into_iter().flatten().collect()
});

/// Intermediate keys that AMD revoked (serial number, RFC 3339), known without a revocation list.
pub(super) const REVOKED: [(Product, &[u8], &str); 1] =
    [(Product::Genoa, &[2, 0, 1], "2022-10-31T12:00:00Z")];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SignatureCache, UnixTime};

    #[test]
    fn built_in_keys_are_amds() {
        let (in_2026, known) = (UnixTime(1_780_000_000), SignatureCache::new());
        for product in Product::ALL {
            let ark = product.ark().unwrap();
            assert!(ark.is_self_issued() && ark.is_issued_by(ark, &known) && ark.is_valid_at(in_2026));
            assert_eq!(ark.subject_cn(), format!("ARK-{product}"));
            for key in [SigningKey::Vcek, SigningKey::Vlek] {
                let issuer = product.intermediate(key).unwrap();
                assert!(
                    issuer.is_issued_by(ark, &known) && issuer.is_authority() && issuer.is_valid_at(in_2026)
                );
                assert_eq!(Product::of_issuer(&issuer.subject_cn()), Some((product, key)));
                assert!(REVOKED.iter().all(|(p, serial, _)| *p != product || *serial != issuer.serial()));
            }
        }
        let genoa = Product::Genoa.ark().unwrap();
        let turin = Product::Turin.intermediate(SigningKey::Vcek).unwrap();
        assert!(!turin.is_issued_by(genoa, &known) && !genoa.is_valid_at(UnixTime(0)));
    }

    #[test]
    fn built_in_keys_are_the_ones_of_the_corpus() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/evidence/roots/amd/");
        if !std::path::Path::new(dir).exists() {
            eprintln!("skipped: no evidence corpus");
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a test that reads the corpus")]
        let read = |name: String| std::fs::read(format!("{dir}{name}.der")).unwrap();
        for product in Product::ALL {
            let name = product.name().to_lowercase();
            assert_eq!(product.ark().unwrap().der(), read(format!("ark_{name}")));
            let issuer = |key| product.intermediate(key).unwrap().der();
            assert_eq!(issuer(SigningKey::Vcek), read(format!("ask_{name}")));
            assert_eq!(issuer(SigningKey::Vlek), read(format!("asvk_{name}")));
        }
        let revoked = Certificate::from_der(&read("ask_genoa_revoked_serial_20001".into())).unwrap();
        assert_eq!(REVOKED[0].1, revoked.serial());
    }

    #[test]
    fn names_and_processors() {
        assert_eq!(Product::of_cpuid([0x19, 0xa0, 2]), Some(Product::Genoa));
        assert_eq!(Product::of_cpuid([0x1a, 0x50, 0]), None);
        for no in ["", "SEV-", "SEV-Rome", "SEV-VLEK-Rome", "ARK-Genoa", "SEV-VLEK-"] {
            assert_eq!(Product::of_issuer(no), None, "{no}");
        }
    }
}
