//! Secrets that are ciphertext before they are written, under a key that is not in the database.
//!
//! The key is 32 random bytes in a file, as hexadecimal text. From it come a sealing key
//! (XChaCha20-Poly1305, <https://datatracker.ietf.org/doc/html/draft-irtf-cfrg-xchacha>), a key for
//! deriving names that nobody else can guess (HMAC-SHA256, RFC 2104), and a short id that goes with
//! everything sealed, so that "sealed with another key file" can be told from "tampered with".

use super::error::{Failure, SqlState};
use super::settings;
use chacha20poly1305::aead::rand_core::RngCore;
use chacha20poly1305::aead::{Aead, OsRng, Payload};
use chacha20poly1305::{AeadCore, Key, KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

type Bytes32 = Zeroizing<[u8; 32]>;

/// The layout of what [`seal`] makes: this byte, the key's id, the nonce, the ciphertext.
const VERSION: u8 = 1;
const KEY_ID: usize = 8;
const NONCE: usize = 24;
const HEADER: usize = 1 + KEY_ID + NONCE;

/// Seals `plaintext`. It opens only with the same `context`, which is not secret: what the secret
/// belongs to, so that one cannot be put in another's place.
///
/// Makes the key file if there is none: sealing the first secret is what calls for it.
///
/// # Errors
/// 55000 when the key file cannot be made or used.
pub fn seal(context: &str, plaintext: &[u8]) -> Result<Vec<u8>, Failure> {
    with_keys(Missing::Make, |keys| {
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload {
            msg: plaintext,
            aad: context.as_bytes(),
        };
        let ciphertext = keys
            .cipher()
            .encrypt(&nonce, payload)
            .map_err(|_| Failure::internal("a secret could not be sealed"))?;
        let mut sealed = Vec::with_capacity(HEADER + ciphertext.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&keys.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    })?
}

/// Opens what [`seal`] made.
///
/// # Errors
/// 55000 when the key file is missing, unreadable, or not the one that it was sealed with, and when
/// the sealed bytes were changed or belong to another context.
pub fn open(context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    with_keys(Missing::Refuse, |keys| {
        let (Some(VERSION), Some(id), Some(nonce), Some(ciphertext)) = (
            sealed.first().copied(),
            sealed.get(1..1 + KEY_ID),
            sealed.get(1 + KEY_ID..HEADER),
            sealed.get(HEADER..),
        ) else {
            return Err(damaged());
        };
        if id != keys.id {
            return Err(unreadable(
                "secret_of_another_key_file",
                "the secret was sealed with another key file",
            )
            .hint(
                "Put the key file back that was there when the secret was set, or set the secret \
                 again.",
            ));
        }
        let payload = Payload {
            msg: ciphertext,
            aad: context.as_bytes(),
        };
        let plaintext = keys.cipher().decrypt(XNonce::from_slice(nonce), payload);
        plaintext.map(Zeroizing::new).map_err(|_| damaged())
    })?
}

/// 32 bytes that only the holder of the key file can compute, the same every time for the same
/// `label` and `parts`. The borders of the parts count: `["ab", "c"]` is not `["a", "bc"]`.
///
/// # Errors
/// 55000 when the key file is missing or cannot be used.
pub fn derive(label: &str, parts: &[&str]) -> Result<[u8; 32], Failure> {
    with_keys(Missing::Refuse, |keys| {
        let mut pieces = vec![label];
        pieces.extend_from_slice(parts);
        *mac(&keys.deriving, &pieces)
    })
}

/// Makes the key file if there is none, for a database that derives before it has a secret.
///
/// # Errors
/// As [`seal`].
pub fn prepare() -> Result<(), Failure> {
    with_keys(Missing::Make, |_| ())
}

/// What follows from one key file.
struct Keys {
    id: [u8; KEY_ID],
    sealing: Bytes32,
    deriving: Bytes32,
}

impl Keys {
    fn new(root: &Bytes32) -> Keys {
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&mac(root, &["payments key id"])[..KEY_ID]);
        Keys {
            id,
            sealing: mac(root, &["payments sealing"]),
            deriving: mac(root, &["payments deriving"]),
        }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(Key::from_slice(self.sealing.as_slice()))
    }
}

fn mac(key: &Bytes32, pieces: &[&str]) -> Bytes32 {
    // HMAC takes a key of any length.
    let mut mac = match <Hmac<Sha256> as Mac>::new_from_slice(key.as_slice()) {
        Ok(mac) => mac,
        Err(impossible) => unreachable!("{impossible}"),
    };
    for piece in pieces {
        mac.update(&(piece.len() as u64).to_be_bytes());
        mac.update(piece.as_bytes());
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The keys of this backend, and which file they were read from. A file that was replaced, as after
/// a restore, has another inode or time and is read again.
static KEPT: Mutex<Option<(Identity, Keys)>> = Mutex::new(None);

#[derive(PartialEq)]
struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    changed: (i64, i64),
    mode: u32,
}

impl Identity {
    fn of(path: &Path, file: &Metadata) -> Identity {
        Identity {
            path: path.to_owned(),
            device: file.dev(),
            inode: file.ino(),
            changed: (file.ctime(), file.ctime_nsec()),
            mode: file.mode(),
        }
    }
}

/// What to do when there is no key file.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    Make,
    Refuse,
}

fn with_keys<R>(missing: Missing, work: impl FnOnce(&Keys) -> R) -> Result<R, Failure> {
    let path = settings::key_file();
    let found = match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound && missing == Missing::Make => {
            make(&path).map_err(|error| {
                unreadable(
                    "key_file_unusable",
                    format!("the key file cannot be made: {error}"),
                )
                .hint(NAMED_BY)
            })?;
            fs::metadata(&path)
        }
        found => found,
    };
    let found = found.map_err(|error| unusable(&error))?;
    if !found.is_file() {
        return Err(unreadable("key_file_unusable", "the key file is not a file").hint(NAMED_BY));
    }

    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let current = Identity::of(&path, &found);
    let (_, keys) = match kept.take() {
        Some(same) if same.0 == current => kept.insert(same),
        _ => kept.insert(read(&path)?),
    };
    Ok(work(keys))
}

fn read(path: &Path) -> Result<(Identity, Keys), Failure> {
    let mut file = File::open(path).map_err(|error| unusable(&error))?;
    let opened = file.metadata().map_err(|error| unusable(&error))?;
    if opened.mode() & 0o077 != 0 {
        return Err(
            unreadable("key_file_exposed", "the key file can be read by others").hint(
                "It must belong to the operating system's user that runs Postgres, with mode 0600.",
            ),
        );
    }

    // Room for some white space around the digits; whatever is longer is not a key.
    let mut text = Zeroizing::new([0; 128]);
    let mut length = 0;
    while length < text.len() {
        match file.read(&mut text[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(unusable(&error)),
        }
    }
    let mut root: Bytes32 = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text[..length].trim_ascii(), root.as_mut_slice()).map_err(|_| {
        unreadable("key_file_malformed", "the key file is malformed").hint(
            "It must hold 64 hexadecimal digits and nothing else. Put a good copy back, or remove \
             it and set the secrets again.",
        )
    })?;
    Ok((Identity::of(path, &opened), Keys::new(&root)))
}

/// Makes a key file that is never seen half written: it gets its name when it is whole and on disk.
/// If another backend was first, its file stays.
fn make(path: &Path) -> io::Result<()> {
    let mut root: Bytes32 = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(root.as_mut_slice());
    let mut text = Zeroizing::new([b'\n'; 65]);
    hex::encode_to_slice(root.as_slice(), &mut text[..64]).map_err(io::Error::other)?;

    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    // What a backend with the same process id left behind when it crashed.
    let _ = fs::remove_file(&draft);
    let written = write_new(&draft, text.as_slice()).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match written {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Whoever may call a function that needs a secret sees these errors, so they do not say where the
/// file is.
const NAMED_BY: &str = "The setting payments.key_file names the file; the operating system's user \
                        that runs Postgres must be able to use it.";

fn unusable(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => unreadable("key_file_missing", "the key file is missing").hint(
            "After a restore, put the key file back that payments.key_file names, or set the \
             secrets again: they are not in a dump.",
        ),
        _ => unreadable(
            "key_file_unusable",
            format!("the key file cannot be used: {error}"),
        )
        .hint(NAMED_BY),
    }
}

fn damaged() -> Failure {
    unreadable(
        "secret_damaged",
        "the sealed secret was changed or belongs to something else",
    )
    .hint("Set the secret again.")
}

fn unreadable(code: &'static str, message: impl Into<String>) -> Failure {
    Failure::new(SqlState::PREREQUISITE_STATE, code, message)
}
