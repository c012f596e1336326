//! What a person types.

use std::io::{BufRead, Read};

use tokio::sync::mpsc;

use super::MAX_PROMPT;

/// Lines of standard input, read beside everything else: an answer can be stopped while the next line is waited for.
pub(super) struct Lines(mpsc::Receiver<std::io::Result<String>>);

impl Lines {
    /// Of standard input. Its thread ends with the program: nothing can wake it from there.
    pub(super) fn of_stdin() -> Self {
        let (sender, receiver) = mpsc::channel(1);
        std::thread::spawn(move || {
            let mut stdin = std::io::stdin().lock();
            while let Some(line) = read(&mut stdin).transpose() {
                let is_last = line.is_err();
                if sender.blocking_send(line).is_err() || is_last {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next line without its end; nothing after the last.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<String>> {
        self.0.recv().await.transpose()
    }
}

fn read(from: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.take(MAX_PROMPT + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() as u64 > MAX_PROMPT {
        return Err(std::io::Error::other(format!("the line has more than {MAX_PROMPT} bytes")));
    }
    let line = String::from_utf8(line).map_err(|_binary| std::io::Error::other("the line is not UTF-8"))?;
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited() {
        let all = |mut bytes: &[u8]| {
            let lines = std::iter::from_fn(|| read(&mut bytes).transpose());
            lines.take(3).map(|line| line.map_err(|error| error.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(all(b"one\r\n\ntwo"), [Ok("one".to_owned()), Ok(String::new()), Ok("two".to_owned())]);
        assert!(all(b"\xff\n")[0].is_err());
        let longest = usize::try_from(MAX_PROMPT).unwrap();
        assert_eq!(all(&vec![b'x'; longest])[0].as_ref().unwrap().len(), longest);
        assert!(all(&vec![b'x'; longest + 1])[0].is_err());
    }
}
