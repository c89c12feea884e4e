#!/usr/bin/env bash
# Makes the archives beside this script with the tools that people use, out of
# plain.tar. Needs gzip, bzip2, xz, zstd and python3.
set -euo pipefail
cd "$(dirname "$0")"
python3 - <<'P'
import io, random, tarfile

numbers = random.Random(1)
with tarfile.open("plain.tar", "w", format=tarfile.PAX_FORMAT) as archive:
    for i in range(6):
        for suffix, content in (("cls", str(i).encode()), ("txt", b"a line of text\n" * numbers.randrange(300)), ("bin", numbers.randbytes(700))):
            member = tarfile.TarInfo(f"sample/{i:06d}.{suffix}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
P
gzip -9nc plain.tar >gzip.tar.gz
head -c 9000 plain.tar | gzip -nc >gzip-members.tgz
tail -c +9001 plain.tar | gzip -nc >>gzip-members.tgz
head -c 777 /dev/zero >>gzip-members.tgz # as padded to a tape's block
bzip2 -c plain.tar >bzip2.tar.bz2
head -c 9000 plain.tar | bzip2 -c >bzip2-streams.tbz # as pbzip2 writes
tail -c +9001 plain.tar | bzip2 -c >>bzip2-streams.tbz
for check in none crc32 crc64 sha256; do
	xz -c --check=$check plain.tar >xz-$check.tar.xz
done
xz -c -T2 --block-size=8KiB plain.tar >xz-blocks.tar.xz
head -c 9000 plain.tar | xz -c >xz-streams.txz
head -c 8 /dev/zero >>xz-streams.txz
tail -c +9001 plain.tar | xz -c >>xz-streams.txz
zstd -qc plain.tar >zstd.tar.zst
zstd -qc --ultra -22 --long=27 <plain.tar >zstd-long.tar.zst
{
	printf '\x5A\x2A\x4D\x18\x03\0\0\0abc' # a frame to be skipped, as pzstd writes first
	head -c 9000 plain.tar | zstd -qc
	tail -c +9001 plain.tar | zstd -qc --no-check
} >zstd-frames.tzst
# Small, for the fuzzer to begin with: the end of an archive, and two streams or blocks of it.
nothing() { head -c 1024 /dev/zero; }
nothing | gzip -nc >tiny.tar.gz
nothing | bzip2 -c >tiny.tar.bz2
nothing | xz -c >tiny.tar.xz
nothing | zstd -qc >tiny.tar.zst
{ nothing | gzip -nc && nothing | gzip -nc; } >tiny-two.tar.gz
{ nothing | bzip2 -c && nothing | bzip2 -c; } >tiny-two.tar.bz2
{ nothing | xz -c --check=none -T1 --block-size=512 && nothing | xz -c --check=sha256; } >tiny-two.tar.xz
{ nothing | zstd -qc && nothing | zstd -qc --no-check; } >tiny-two.tar.zst
# Refused, for what they ask for.
xz -c --format=lzma plain.tar >refused.tar.lzma
xz -c --lzma2=dict=512MiB plain.tar >refused-dictionary.tar.xz
xz -c --x86 --lzma2 plain.tar >refused-filter.tar.xz
zstd -qc --ultra -22 --long=28 <plain.tar >refused-window.tar.zst
