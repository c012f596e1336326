//! Event logs, RTMR3, and the table of statuses.

use crate::Digest;
use crate::tdx::{
    EventLog, Quote, TcbStatus, config_event, expected_rtmr3, model_event, replay_rtmr, rtmr3_factor,
};

use super::factory::{Case, at};
use crate::result::Status;

/// One event: register, type, digests by algorithm, data.
fn event(register: u32, kind: u32, digests: &[(u16, usize)], data: &[u8]) -> Vec<u8> {
    let mut out = [register, kind, u32::try_from(digests.len()).unwrap()].map(u32::to_le_bytes).concat();
    for (algorithm, size) in digests {
        out.extend(algorithm.to_le_bytes());
        out.extend(vec![0x5a; *size]);
    }
    out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    out.extend(data);
    out
}

pub(crate) fn spec_id(algorithms: &[(u16, u16)]) -> Vec<u8> {
    let mut id = b"Spec ID Event03\0".to_vec();
    id.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    id.extend(u32::try_from(algorithms.len()).unwrap().to_le_bytes());
    algorithms.iter().for_each(|(algorithm, size)| {
        id.extend(algorithm.to_le_bytes());
        id.extend(size.to_le_bytes());
    });
    id.push(0);
    let mut out = vec![1, 0, 0, 0, 3, 0, 0, 0];
    out.extend([0; 20]);
    out.extend(u32::try_from(id.len()).unwrap().to_le_bytes());
    out.extend(id);
    out
}

const SHA256: (u16, usize) = (0x0b, 32);
const SHA384: (u16, usize) = (0x0c, 48);
const BOTH: [(u16, u16); 2] = [(0x0b, 32), (0x0c, 48)];

fn refused(parts: &[&[u8]]) -> String {
    EventLog::parse(&parts.concat()).unwrap_err().to_string()
}

#[test]
fn logs_are_read_and_replayed() {
    let head = spec_id(&BOTH);
    let log = [
        head.clone(),
        event(1, 4, &[SHA256, SHA384], b"x"),
        event(4, 0xd, &[SHA384], b""),
        event(0, 3, &[], b"StartupLocality"),
        event(1, 4, &[SHA384], b"y"),
    ]
    .concat();
    let log = EventLog::parse(&log).unwrap();
    assert_eq!(log.events.iter().map(|e| e.rtmr).collect::<Vec<_>>(), [0, 3, 0]);
    assert_eq!(log.events[0].data, b"x");
    let twice = replay_rtmr(&[[0x5a; 48]; 2]);
    assert_eq!(log.replay().map(|m| m.0), [twice, [0; 48], [0; 48], replay_rtmr(&[[0x5a; 48]])]);
    assert!(EventLog::parse(&head).unwrap().events.is_empty());
}

#[test]
fn a_log_explains_the_registers_or_does_not() {
    let of = |events: &[u32], registers: &[(usize, u8)]| {
        let log: Vec<u8> = events.iter().flat_map(|register| event(*register, 4, &[SHA384], b"")).collect();
        let mut case = Case::new(5);
        case.set(at::RTMR0, &[0; 4 * 48]);
        for (register, digits) in registers {
            let value = if *digits == 0x5a { replay_rtmr(&[[0x5a; 48]]) } else { [*digits; 48] };
            case.set(at::RTMR0 + 48 * register, &value);
        }
        let log = EventLog::parse(&[spec_id(&BOTH), log].concat()).unwrap();
        let factor = log.factor(&Quote::parse(&case.quote()).unwrap());
        (factor.status, factor.got.unwrap())
    };
    let pass = |got: &str| (Status::Pass, got.to_owned());
    let fail = |got: &str| (Status::Fail, got.to_owned());
    assert_eq!(of(&[1], &[(0, 0x5a)]), pass("1 events make RTMR0, RTMR1, RTMR2"));
    assert_eq!(of(&[1, 4], &[(0, 0x5a), (3, 0x5a)]), pass("2 events make RTMR0, RTMR1, RTMR2, RTMR3"));
    assert_eq!(of(&[1], &[(0, 0x5a), (3, 9)]), pass("1 events make RTMR0, RTMR1, RTMR2"), "the software's");
    assert_eq!(of(&[1, 4], &[(0, 0x5a), (3, 9)]), fail("another RTMR3"));
    assert_eq!(of(&[1], &[(0, 0x5a), (2, 9)]), fail("another RTMR2"));
    assert_eq!(of(&[1, 2], &[]), fail("another RTMR0, RTMR1"));
}

#[test]
fn logs_that_are_refused() {
    let head = spec_id(&BOTH);
    assert!(refused(&[]).contains("truncated"));
    assert!(refused(&[&vec![0; 256 * 1024 + 1]]).contains("at most 262144"));
    let changed = |place: usize, value: u8| {
        let mut other = head.clone();
        other[place] = value;
        refused(&[&other])
    };
    assert!(changed(4, 4).contains("does not begin with a specification identifier"));
    assert!(changed(8, 1).contains("digest of the first event"));
    assert!(changed(28, 200).contains("truncated"));
    assert!(changed(32, b's').contains("not in the crypto-agile format"));
    assert!(changed(56, 9).contains("9 algorithms, at most 8"));
    assert!(changed(56, 1).contains("truncated"));
    let mut longer = [&head[..], &[0]].concat();
    longer[28] += 1;
    assert!(refused(&[&longer]).contains("1 bytes too many"));
    assert!(refused(&[&spec_id(&[(0x0b, 32)])]).contains("without SHA-384"));
    assert!(refused(&[&spec_id(&[(0x0c, 32)])]).contains("without SHA-384"));
    let with = |event: Vec<u8>| refused(&[&head, &event]);
    assert!(with(event(0, 4, &[SHA384], b"")).contains("register 0 is unknown"));
    assert!(with(event(5, 4, &[SHA384], b"")).contains("register 5 is unknown"));
    assert!(with(event(257, 4, &[SHA384], b"")).contains("register 257 is unknown"));
    assert!(with(event(1, 4, &[SHA256], b"")).contains("without SHA-384 digest"));
    assert!(with(event(1, 4, &[], b"")).contains("without SHA-384 digest"));
    assert!(with(event(1, 4, &[SHA384, SHA384], b"")).contains("two SHA-384 digests"));
    assert!(with(event(1, 4, &[(0x0d, 64)], b"")).contains("algorithm 0xd is not announced"));
    assert!(with(event(1, 4, &[SHA256; 9], b"")).contains("an event with 9 digests"));
    // Announced with another size first: such a digest is none.
    let odd = spec_id(&[(0x0c, 32), (0x0c, 48)]);
    assert!(refused(&[&odd, &event(1, 4, &[(0x0c, 32)], b"")]).contains("without SHA-384 digest"));
    let mut long = event(1, 4, &[SHA384], b"");
    let len = long.len();
    long[len - 4..].fill(0xff);
    assert!(with(long).contains("truncated"));
    let many = event(1, 3, &[], b"").repeat(4097);
    assert!(refused(&[&head, &many]).contains("more than 4096 events"));
    assert!(EventLog::parse(&[&head[..], &many[16..]].concat()).is_ok());
}

/// What the enclave must extend, computed by Python's hashlib.
#[test]
fn rtmr3_of_configuration_and_models() {
    let (config, models) = (Digest([1; 32]), [Digest([2; 32]), Digest([3; 32])]);
    assert_eq!(
        hex::encode(config_event(&config)),
        "8e26610e4552c5d8325cf8613d290448f0b8b97e0291e1fc17c6623573625907d44aba28d694e018ddf96f02e5f4d63c"
    );
    assert_eq!(
        hex::encode(model_event(&models[0])),
        "1c95ac1024c742c562504adc99a43690d38d8dddfa967c7342a887cdea218c6818973dcbbaaa21ee67df1bd18557bc57"
    );
    assert_eq!(
        hex::encode(expected_rtmr3(&config, &models)),
        "1e9e4185b1127203143f30219073d6b7e0be570a46e78a52e886944b2f3f49e7fd27e28263decc972bdb526dba1973e0"
    );
    let [a, b] = models;
    assert_ne!(expected_rtmr3(&config, &[a, b]), expected_rtmr3(&config, &[b, a]));
    assert_ne!(expected_rtmr3(&config, &[]), expected_rtmr3(&config, &[a]));
    let mut case = Case::new(5);
    case.set(at::RTMR0 + 144, &expected_rtmr3(&config, &models));
    let quote = Quote::parse(&case.quote()).unwrap();
    assert_eq!(rtmr3_factor(&quote, &config, &models).status, Status::Pass);
    assert_eq!(rtmr3_factor(&quote, &config, &models[..1]).status, Status::Fail);
    assert_eq!(rtmr3_factor(&quote, &Digest([9; 32]), &models).status, Status::Fail);
}

/// Intel's table for platform (left) and module or quoting enclave (right), and what follows from it.
#[test]
fn statuses_together() {
    use TcbStatus::*;
    let all = [
        UpToDate,
        SwHardeningNeeded,
        ConfigurationNeeded,
        ConfigurationAndSwHardeningNeeded,
        TdRelaunchAdvised,
        TdRelaunchAdvisedConfigurationNeeded,
        OutOfDate,
        OutOfDateConfigurationNeeded,
        Revoked,
        NoLevel,
    ];
    for status in all {
        assert_eq!(status.and(UpToDate), status);
        assert_eq!(status.and(NoLevel), NoLevel);
        assert_eq!(status.and(status), status);
        assert_eq!(status.and(Revoked), if status == NoLevel { NoLevel } else { Revoked });
        for other in all {
            assert_eq!(status.and(other), other.and(status));
        }
    }
    assert_eq!(SwHardeningNeeded.and(OutOfDate), OutOfDate);
    assert_eq!(ConfigurationNeeded.and(OutOfDate), OutOfDateConfigurationNeeded);
    assert_eq!(ConfigurationAndSwHardeningNeeded.and(OutOfDate), OutOfDateConfigurationNeeded);
    assert_eq!(OutOfDateConfigurationNeeded.and(OutOfDate), OutOfDateConfigurationNeeded);
    assert_eq!(SwHardeningNeeded.and(ConfigurationNeeded), ConfigurationAndSwHardeningNeeded);
    assert_eq!(TdRelaunchAdvised.and(ConfigurationNeeded), TdRelaunchAdvisedConfigurationNeeded);
    assert_eq!(TdRelaunchAdvised.and(SwHardeningNeeded), TdRelaunchAdvised);
    assert_eq!(TdRelaunchAdvised.and(OutOfDate), OutOfDate);
}
