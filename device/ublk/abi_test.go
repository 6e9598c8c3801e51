package ublk

import (
	"testing"
	"unsafe"
)

// TestLayout compares sizes and offsets with those that a C compiler gives to
// linux/ublk_cmd.h and linux/io_uring.h, on 64-bit machines.
func TestLayout(t *testing.T) {
	var info devInfo
	var p params
	var e sqe
	var r ringParams
	for name, c := range map[string]struct{ got, want uintptr }{
		"ublksrv_ctrl_cmd":                   {unsafe.Sizeof(ctrlCmd{}), 32},
		"ublksrv_ctrl_dev_info":              {unsafe.Sizeof(info), 64},
		"ublksrv_ctrl_dev_info.max_io":       {unsafe.Offsetof(info.maxIO), 8},
		"ublksrv_ctrl_dev_info.pid":          {unsafe.Offsetof(info.pid), 16},
		"ublksrv_ctrl_dev_info.flags":        {unsafe.Offsetof(info.flags), 24},
		"ublksrv_ctrl_dev_info.owner":        {unsafe.Offsetof(info.owner), 32},
		"ublk_params, to discard":            {unsafe.Sizeof(p), 64},
		"ublk_params.basic":                  {unsafe.Offsetof(p.attrs), 8},
		"ublk_params.basic.logical_bs_shift": {unsafe.Offsetof(p.logicalShift), 12},
		"ublk_params.basic.io_min_shift":     {unsafe.Offsetof(p.minimumShift), 15},
		"ublk_params.basic.dev_sectors":      {unsafe.Offsetof(p.devSectors), 24},
		"ublk_params.discard":                {unsafe.Offsetof(p.discardAlignment), 40},
		"ublk_params.discard.segments":       {unsafe.Offsetof(p.maxDiscardSegments), 56},
		"ublksrv_io_desc":                    {unsafe.Sizeof(ioDesc{}), 24},
		"ublksrv_io_cmd":                     {unsafe.Sizeof(ioCmd{}), 16},
		"io_uring_sqe":                       {unsafe.Sizeof(e), 64},
		"io_uring_sqe.addr":                  {unsafe.Offsetof(e.addr), 16},
		"io_uring_sqe.user_data":             {unsafe.Offsetof(e.userData), 32},
		"io_uring_sqe.cmd":                   {unsafe.Offsetof(e.cmd), 48},
		"io_uring_cqe":                       {unsafe.Sizeof(cqe{}), 16},
		"io_uring_params":                    {unsafe.Sizeof(r), 120},
		"io_uring_params.features":           {unsafe.Offsetof(r.features), 20},
		"io_uring_params.sq_off":             {unsafe.Offsetof(r.sq), 40},
		"io_uring_params.cq_off":             {unsafe.Offsetof(r.cq), 80},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", name, c.got, c.want)
		}
	}
}

// TestNumbers compares commands with what the macros of the headers expand to.
func TestNumbers(t *testing.T) {
	for name, c := range map[string]struct{ got, want uint32 }{
		"UBLK_U_CMD_GET_DEV_INFO":        {cmdGetDevInfo, 0x80207502},
		"UBLK_U_CMD_ADD_DEV":             {cmdAddDev, 0xc0207504},
		"UBLK_U_CMD_DEL_DEV":             {cmdDelDev, 0xc0207505},
		"UBLK_U_CMD_START_DEV":           {cmdStartDev, 0xc0207506},
		"UBLK_U_CMD_STOP_DEV":            {cmdStopDev, 0xc0207507},
		"UBLK_U_CMD_SET_PARAMS":          {cmdSetParams, 0xc0207508},
		"UBLK_U_CMD_GET_PARAMS":          {cmdGetParams, 0x80207509},
		"UBLK_U_CMD_START_USER_RECOVERY": {cmdStartUserRecovery, 0xc0207510},
		"UBLK_U_CMD_END_USER_RECOVERY":   {cmdEndUserRecovery, 0xc0207511},
		"UBLK_U_CMD_GET_FEATURES":        {cmdGetFeatures, 0x80207513},
		"UBLK_U_CMD_UPDATE_SIZE":         {cmdUpdateSize, 0xc0207515},
		"UBLK_U_IO_FETCH_REQ":            {ioFetch, 0xc0107520},
		"UBLK_U_IO_COMMIT_AND_FETCH_REQ": {ioCommitAndFetch, 0xc0107521},
	} {
		if c.got != c.want {
			t.Errorf("%s: %#x, want %#x", name, c.got, c.want)
		}
	}
	if got := dataPos(1, 2); got != 0x80000000+1<<41+2<<25 {
		t.Errorf("data of tag 2 of queue 1 is at %#x", got)
	}
	if a, b := descSize(1), descSize(maxDepth); a != 4096 || b != 98304 {
		t.Errorf("descriptors of 1 and %d tags take %d and %d bytes", maxDepth, a, b)
	}
}
