//! TCB_VERSION: security versions of the firmware (AMD 56860, table 3).

use super::product::Product;

/// Security versions of the firmware parts, as the 8 bytes of the report. Their meaning depends on the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbVersion(pub [u8; 8]);

/// The parts by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbParts {
    /// Boot loader of the security processor.
    pub bootloader: u8,
    /// Its operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores; its meaning depends on the stepping.
    pub microcode: u8,
    /// Firmware of the FMC, which only Turin and later have.
    pub fmc: Option<u8>,
}

impl TcbVersion {
    /// The parts; Turin and later have another order, with the FMC first.
    #[must_use]
    pub fn parts(self, product: Product) -> TcbParts {
        let [b0, b1, b2, b3, _, _, b6, b7] = self.0;
        match product {
            Product::Milan | Product::Genoa => {
                TcbParts { bootloader: b0, tee: b1, snp: b6, microcode: b7, fmc: None }
            }
            Product::Turin => TcbParts { bootloader: b1, tee: b2, snp: b3, microcode: b7, fmc: Some(b0) },
        }
    }

    /// Whether the bytes that the product reserves are zero.
    #[must_use]
    pub fn is_well_formed(self, product: Product) -> bool {
        let [_, _, b2, b3, b4, b5, b6, _] = self.0;
        match product {
            Product::Milan | Product::Genoa => [b2, b3, b4, b5] == [0; 4],
            Product::Turin => [b4, b5, b6] == [0; 3],
        }
    }
}

impl TcbParts {
    /// Whether every part is at least `floor`'s. A part that only one of them has is a mismatch.
    #[must_use]
    pub fn is_at_least(&self, floor: &Self) -> bool {
        let fmc = match (self.fmc, floor.fmc) {
            (Some(have), Some(want)) => have >= want,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        fmc && self.bootloader >= floor.bootloader
            && self.tee >= floor.tee
            && self.snp >= floor.snp
            && self.microcode >= floor.microcode
    }

    /// Name and value of each part, in AMD's order.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let fmc = self.fmc.map(|fmc| ("fmc", u64::from(fmc)));
        let parts = [
            ("bootloader", self.bootloader),
            ("tee", self.tee),
            ("snp", self.snp),
            ("microcode", self.microcode),
        ];
        fmc.into_iter().chain(parts.into_iter().map(|(name, value)| (name, u64::from(value))))
    }
}

impl std::fmt::Display for TcbParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: Vec<_> = self.named().map(|(name, value)| format!("{name} {value}")).collect();
        f.write_str(&text.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: TcbVersion = TcbVersion([1, 2, 3, 4, 5, 6, 7, 8]);

    #[test]
    fn parts_depend_on_the_product() {
        assert_eq!(ORDER.parts(Product::Genoa).to_string(), "bootloader 1 tee 2 snp 7 microcode 8");
        assert_eq!(ORDER.parts(Product::Turin).to_string(), "fmc 1 bootloader 2 tee 3 snp 4 microcode 8");
        assert!(TcbVersion([1, 2, 0, 0, 0, 0, 7, 8]).is_well_formed(Product::Milan));
        assert!(!ORDER.is_well_formed(Product::Milan) && !ORDER.is_well_formed(Product::Turin));
        assert!(TcbVersion([1, 2, 3, 4, 0, 0, 0, 8]).is_well_formed(Product::Turin));
    }

    #[test]
    fn every_part_counts() {
        let genoa = TcbVersion([5, 5, 0, 0, 0, 0, 5, 5]).parts(Product::Genoa);
        assert!(genoa.is_at_least(&genoa));
        for higher in [
            TcbParts { bootloader: 6, ..genoa },
            TcbParts { tee: 6, ..genoa },
            TcbParts { snp: 6, ..genoa },
            TcbParts { microcode: 6, ..genoa },
            TcbParts { fmc: Some(0), ..genoa },
        ] {
            assert!(!genoa.is_at_least(&higher), "{higher}");
        }
        let turin = TcbVersion([5, 5, 5, 5, 0, 0, 0, 5]).parts(Product::Turin);
        assert!(!turin.is_at_least(&TcbParts { fmc: Some(6), ..turin }) && !turin.is_at_least(&genoa));
    }
}
