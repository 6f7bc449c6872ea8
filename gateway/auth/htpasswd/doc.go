// Package htpasswd compares passwords with hashes as they stand in files of htpasswd.
//
//	line of a file ── Check: is it of a kind that is known, and not too dear? ──> kept
//	password + hash ── Verify ──> yes or no, after microseconds or, as is meant for bcrypt, tens of milliseconds
//
// Known are bcrypt ($2a$, $2b$, $2y$), Apache's MD5 ($apr1$), crypt's MD5 ($1$), SHA-256 ($5$) and SHA-512 ($6$), {SHA}, {SSHA} and
// {PLAIN}. The oldest crypt, by DES, looks at eight characters only and is refused.
package htpasswd
