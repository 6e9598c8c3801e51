#!/usr/bin/env bash
# build.sh makes a Debian package of what `make install PREFIX=/usr` installs:
#   deb/build.sh VERSION TREE DIRECTORY
# TREE has the installed files, and is changed; the package goes to DIRECTORY, and
# its path is the output. It needs dpkg-deb alone, not debhelper: the maintainer
# scripts beside this file do what debhelper's would, and keep mounted disks.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 tree=$2 out=$3

# The commit's time makes the same package of the same sources.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}

# A package's version begins with a digit; one that is only the name of a commit
# gets its time before it, so that a later one is newer.
case ${version#v} in
[0-9]*.*) version=${version#v} ;;
*) version=0~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$version ;;
esac
version=${version//-/+}

case $(${GO:-go} env GOARCH) in
386) arch=i386 ;;
arm) arch=armhf ;;
ppc64le) arch=ppc64el ;;
*) arch=$(${GO:-go} env GOARCH) ;;
esac

# A build with RDMA is linked to libc, and finds the RDMA libraries when it runs.
libc=$({ grep -aohE 'GLIBC_2\.[0-9]+' "$tree"/usr/sbin/* || true; } | sort -uV | tail -1)

doc=$tree/usr/share/doc/iscsictl
install -d "$tree/DEBIAN" "$doc/examples"
install -m 0644 deb/copyright "$doc/copyright"
install -m 0644 README.md docs/*.md "$doc/"
install -m 0755 init/iscsid.sh "$doc/examples/" # for hosts without systemd
{
	printf 'iscsictl (%s) unstable; urgency=medium\n\n  * Built by "make deb".\n\n' "$version"
	printf ' -- %s  %s\n' "${DEB_MAINTAINER:?}" "$(date -uR -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$doc/changelog.gz"
install -D -m 0644 deb/lintian-overrides "$tree/usr/share/lintian/overrides/iscsictl"
find "$tree/usr/share/man" -type f -exec gzip -9n {} +

sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@MAINTAINER@/$DEB_MAINTAINER/" \
	-e "s/@SIZE@/$(du -k --apparent-size -s --exclude=DEBIAN "$tree" | cut -f1)/" \
	-e "${libc:+s/@LIBC@/${libc#GLIBC_}/}; /@LIBC@/d" deb/control.in >"$tree/DEBIAN/control"
units=$(cd "$tree/usr/lib/systemd/system" && ls)
for script in postinst prerm postrm; do
	sed "s/@UNITS@/${units//$'\n'/ }/" deb/$script >"$tree/DEBIAN/$script"
	chmod 0755 "$tree/DEBIAN/$script"
done
(cd "$tree" && find etc -type f | sed 's,^,/,' | sort >DEBIAN/conffiles)
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
# Whatever the umask was.
find "$tree" -type d -exec chmod 0755 {} +
chmod 0644 "$tree"/DEBIAN/{control,conffiles,md5sums}

mkdir -p "$out"
dpkg-deb --root-owner-group --build "$tree" "$out" >/dev/null
echo "$out/iscsictl_${version}_$arch.deb"
