#!/bin/bash
# The first process of the host that host.sh makes: finishes its file systems and
# becomes systemd.
#   host-init.sh ROOT
set -euo pipefail
cd "$1"
mount --make-rprivate /
mount -t proc proc proc
mount -t sysfs sys sys
mount -t devtmpfs dev dev
mkdir -p dev/pts dev/shm
mount -t devpts devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mount -t cgroup2 cgroup2 sys/fs/cgroup
hostname host
pivot_root . .
umount -l .
cd /
touch /etc/.updated /var/.updated # nothing is to be rebuilt
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=vm /lib/systemd/systemd --system --unit=multi-user.target \
	--show-status=no --log-target=journal </dev/null
