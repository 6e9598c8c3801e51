package iscsi

import (
	"errors"
	"fmt"
)

// Stage is a stage of the login phase (RFC 7143 §11.12.3).
type Stage uint8

// The stages. 2 is reserved.
const (
	StageSecurity    Stage = 0
	StageOperational Stage = 1
	StageFullFeature Stage = 3
)

// String is the name of the stage.
func (s Stage) String() string {
	switch s {
	case StageSecurity:
		return "security negotiation"
	case StageOperational:
		return "operational negotiation"
	case StageFullFeature:
		return "full-feature phase"
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

// Version is the only protocol version there is (RFC 7143 §11.12.4).
const Version = 0x00

const (
	transitBit       = 0x80
	loginContinueBit = 0x40
	stageMask        = 0x03
	currentShift     = 2
)

func loginFlags(transit, more bool, current, next Stage) byte {
	flags := byte(current) & stageMask << currentShift
	if transit {
		flags |= transitBit | byte(next)&stageMask
	}
	if more {
		flags |= loginContinueBit
	}
	return flags
}

func checkStages(transit, more bool, current, next Stage) error {
	switch {
	case current != StageSecurity && current != StageOperational:
		return fmt.Errorf("current stage %d is none of login's", uint8(current))
	case transit && more:
		return errors.New("both transit and continue are set")
	case transit && next != StageOperational && next != StageFullFeature:
		return fmt.Errorf("next stage %d does not exist", uint8(next))
	case transit && next <= current:
		return fmt.Errorf("transit from %v back to %v", current, next)
	}
	return nil
}
