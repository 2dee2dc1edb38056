//! How is kept what was said, so that the database alone tells nobody?
//!
//! Each conversation has a random key of its own, which is kept wrapped by the configured one: to configure
//! another key is to wrap these anew, and to delete a conversation is to delete its key. Every text is sealed
//! by AES-256-GCM-SIV with a random nonce and bound to its place: schema, tenant, owner, conversation, kind,
//! row and number. A text that is put in another's place opens for nobody. (XChaCha20-Poly1305 would do as
//! well; aws-lc, the one provider of cryptography here, does not have it.)

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, hmac,
};

use super::{Error, Keys, owner::hex};

/// What every seal is bound to; another, when rows come to mean something else.
const SCHEMA: &str = "waystation conversations 1";

/// Whose a text is, and of what: the part of its place that all texts of a conversation have in common.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub tenant: &'a str,
    pub owner: &'a str,
    /// The conversation's id, or that of what has a key of its own.
    pub thing: &'a str,
}

/// Which text it is.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a>(pub &'static str, pub &'a str, pub i64);

/// Opens and seals texts of one conversation.
pub enum Cipher {
    Clear,
    Sealed(LessSafeKey),
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher") // It may hold a key.
    }
}

/// A wrapped key, with the id of the one that wraps it. None of both where texts are in clear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrapped {
    pub kek: Option<String>,
    pub dek: Option<Vec<u8>>,
}

/// The configured keys.
pub struct Vault(Vec<(String, LessSafeKey)>);

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault") // It holds keys.
    }
}

impl Vault {
    pub fn new(keys: Option<&Keys>) -> Result<Self, Error> {
        let all = keys.into_iter().flat_map(|keys| [&keys.current].into_iter().chain(&keys.earlier));
        all.map(|bytes| Ok((id_of(bytes), key(bytes)?))).collect::<Result<_, Error>>().map(Self)
    }

    /// The id of the key that wraps from now on.
    pub fn current(&self) -> Option<&str> {
        self.0.first().map(|(id, _)| id.as_str())
    }

    pub fn knows(&self, kek: &str) -> bool {
        self.0.iter().any(|(id, _)| id == kek)
    }

    /// A new key for what is at a place.
    pub fn fresh(&self, place: Place<'_>) -> Result<(Cipher, Wrapped), Error> {
        if self.0.is_empty() {
            return Ok((Cipher::Clear, Wrapped::default()));
        }
        let mut dek = [0; 32];
        getrandom::fill(&mut dek).map_err(unavailable)?;
        Ok((Cipher::Sealed(key(&dek)?), self.wrap(&dek, place)?))
    }

    /// What opens the texts at a place. Texts in clear are not taken where a key is configured: somebody has
    /// put them there.
    pub fn open(&self, wrapped: &Wrapped, place: Place<'_>) -> Result<Cipher, Error> {
        match wrapped {
            Wrapped { kek: None, dek: None } if self.0.is_empty() => Ok(Cipher::Clear),
            wrapped => Ok(Cipher::Sealed(key(&self.unwrap(wrapped, place)?)?)),
        }
    }

    /// The same key, wrapped by the configured one.
    pub fn rewrap(&self, wrapped: &Wrapped, place: Place<'_>) -> Result<Wrapped, Error> {
        self.wrap(&self.unwrap(wrapped, place)?, place)
    }

    fn wrap(&self, dek: &[u8], place: Place<'_>) -> Result<Wrapped, Error> {
        let (id, key) = self.0.first().ok_or_else(|| unavailable("no key is configured"))?;
        let dek = seal(key, dek, aad(place, Row("key", id, 0)))?;
        Ok(Wrapped { kek: Some(id.clone()), dek: Some(dek) })
    }

    fn unwrap(&self, wrapped: &Wrapped, place: Place<'_>) -> Result<[u8; 32], Error> {
        let (Some(kek), Some(dek)) = (&wrapped.kek, &wrapped.dek) else {
            return Err(unavailable("texts are in clear that should be sealed"));
        };
        let known = self.0.iter().find(|(id, _)| id == kek);
        let (_, key) = known.ok_or_else(|| unavailable("a key is not configured"))?;
        let dek = open(key, dek, aad(place, Row("key", kek, 0)))?;
        dek.try_into().map_err(|_| unavailable("a wrapped key is too short"))
    }
}

impl Cipher {
    pub fn is_clear(&self) -> bool {
        matches!(self, Self::Clear)
    }

    pub fn seal(&self, text: &[u8], place: Place<'_>, row: Row<'_>) -> Result<Vec<u8>, Error> {
        match self {
            Self::Clear => Ok(text.to_vec()),
            Self::Sealed(key) => seal(key, text, aad(place, row)),
        }
    }

    pub fn open(&self, sealed: &[u8], place: Place<'_>, row: Row<'_>) -> Result<Vec<u8>, Error> {
        match self {
            Self::Clear => Ok(sealed.to_vec()),
            Self::Sealed(key) => open(key, sealed, aad(place, row)),
        }
    }
}

/// Told from the key itself, so that nobody has to name keys: a wrong key is one that is not known.
fn id_of(key: &[u8; 32]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"waystation conversations key id");
    hex(&tag.as_ref()[..8])
}

fn key(bytes: &[u8; 32]) -> Result<LessSafeKey, Error> {
    UnboundKey::new(&AES_256_GCM_SIV, bytes).map(LessSafeKey::new).map_err(unavailable)
}

fn seal(key: &LessSafeKey, text: &[u8], aad: Aad<digest::Digest>) -> Result<Vec<u8>, Error> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(unavailable)?;
    let mut text = text.to_vec();
    let to_seal = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(to_seal, aad, &mut text).map_err(unavailable)?;
    Ok([&nonce[..], &text].concat())
}

fn open(key: &LessSafeKey, sealed: &[u8], aad: Aad<digest::Digest>) -> Result<Vec<u8>, Error> {
    let cannot = || unavailable("what is kept cannot be opened: it was changed, or the key is another");
    let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(cannot)?;
    let mut text = text.to_vec();
    let length = key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut text);
    let length = length.map_err(|_| cannot())?.len();
    text.truncate(length);
    Ok(text)
}

fn aad(place: Place<'_>, row: Row<'_>) -> Aad<digest::Digest> {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [SCHEMA, place.tenant, place.owner, place.thing, row.0, row.1] {
        // Each part ends where its length says, so no two rows of parts read alike.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.update(&row.2.to_be_bytes());
    Aad::from(context.finish())
}

fn unavailable(why: impl std::fmt::Display) -> Error {
    Error::Unavailable(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { tenant: "t", owner: "o", thing: "cnv_1" };
    const ROW: Row<'_> = Row("body", "msg_1", 1);

    fn vault(current: u8, earlier: &[u8]) -> Vault {
        let keys = Keys { current: [current; 32], earlier: earlier.iter().map(|one| [*one; 32]).collect() };
        Vault::new(Some(&keys)).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let (cipher, _) = vault(1, &[]).fresh(PLACE).unwrap();
        let sealed = cipher.seal(b"hush", PLACE, ROW).unwrap();
        assert!(!sealed.windows(4).any(|part| part == b"hush"));
        assert_eq!(cipher.open(&sealed, PLACE, ROW).unwrap(), b"hush");
        for (place, row) in [
            (Place { tenant: "u", ..PLACE }, ROW),
            (Place { owner: "p", ..PLACE }, ROW),
            (Place { thing: "cnv_2", ..PLACE }, ROW),
            (PLACE, Row("extras", "msg_1", 1)),
            (PLACE, Row("body", "msg_2", 1)),
            (PLACE, Row("body", "msg_1", 2)),
        ] {
            assert!(cipher.open(&sealed, place, row).is_err(), "{place:?} {row:?}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(cipher.open(&changed, PLACE, ROW).is_err());
            assert!(cipher.open(&sealed[..at], PLACE, ROW).is_err());
        }
    }

    #[test]
    fn keys_are_rotated_by_wrapping_anew() {
        let old = vault(1, &[]);
        let (cipher, wrapped) = old.fresh(PLACE).unwrap();
        let sealed = cipher.seal(b"hush", PLACE, ROW).unwrap();
        let new = vault(2, &[1]);
        let open = |vault: &Vault, wrapped: &Wrapped| vault.open(wrapped, PLACE)?.open(&sealed, PLACE, ROW);
        assert_eq!(open(&new, &wrapped).unwrap(), b"hush", "an earlier key still opens");
        let again = new.rewrap(&wrapped, PLACE).unwrap();
        assert_eq!(again.kek.as_deref(), new.current());
        assert_eq!(open(&vault(2, &[]), &again).unwrap(), b"hush");
        assert!(open(&old, &again).is_err());
        assert!(open(&Vault::new(None).unwrap(), &again).is_err());
        assert!(new.open(&Wrapped::default(), PLACE).is_err(), "no clear text where a key is configured");
    }
}
