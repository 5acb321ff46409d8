/*
 * DSDT: the devices every machine has. Hardware-reduced ACPI: no PM1 block, no PIC, no SCI; events
 * come through the generic event device. Addresses repeat vm/layout.h. W64B and W64L, the 64-bit
 * PCI window, are in the SSDT because they depend on the size of RAM (firmware/acpi.c).
 */
DefinitionBlock ("", "DSDT", 2, "VMM   ", "VMMDSDT ", 1)
{
	External (\W64B, IntObj)
	External (\W64L, IntObj)
	External (\_SB.PCI0.PCNT, MethodObj)

	Name (\_S5, Package () { 5, 0, 0, 0 })

	Scope (\_SB)
	{
		Device (PCI0)
		{
			Name (_HID, EisaId ("PNP0A08"))
			Name (_CID, EisaId ("PNP0A03"))
			Name (_SEG, 0)
			Name (_BBN, 0)
			Name (_UID, 0)

			Name (RES0, ResourceTemplate ()
			{
				WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					0, 0, 0, 0, 1)
				IO (Decode16, 0x0cf8, 0x0cf8, 1, 8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, 0x1000, 0xffff, 0, 0xf000)
				DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed,
					NonCacheable, ReadWrite,
					0, 0xc0000000, 0xdfffffff, 0, 0x20000000)
				QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed,
					Cacheable, ReadWrite,
					0, 0, 0, 0, 0, , , W64)
			})

			Method (_CRS, 0, Serialized)
			{
				CreateQWordField (RES0, ^W64._MIN, WMIN)
				CreateQWordField (RES0, ^W64._MAX, WMAX)
				CreateQWordField (RES0, ^W64._LEN, WLEN)
				WMIN = \W64B
				WMAX = \W64B + \W64L - 1
				WLEN = \W64L
				Return (RES0)
			}

			/* The function in slot n interrupts at GSI 16 + n % 8. */
			Name (_PRT, Package ()
			{
				Package () { 0x0001ffff, 0, 0, 17 },
				Package () { 0x0002ffff, 0, 0, 18 },
				Package () { 0x0003ffff, 0, 0, 19 },
				Package () { 0x0004ffff, 0, 0, 20 },
				Package () { 0x0005ffff, 0, 0, 21 },
				Package () { 0x0006ffff, 0, 0, 22 },
				Package () { 0x0007ffff, 0, 0, 23 },
				Package () { 0x0008ffff, 0, 0, 16 },
				Package () { 0x0009ffff, 0, 0, 17 },
				Package () { 0x000affff, 0, 0, 18 },
				Package () { 0x000bffff, 0, 0, 19 },
				Package () { 0x000cffff, 0, 0, 20 },
				Package () { 0x000dffff, 0, 0, 21 },
				Package () { 0x000effff, 0, 0, 22 },
				Package () { 0x000fffff, 0, 0, 23 },
				Package () { 0x0010ffff, 0, 0, 16 },
				Package () { 0x0011ffff, 0, 0, 17 },
				Package () { 0x0012ffff, 0, 0, 18 },
				Package () { 0x0013ffff, 0, 0, 19 },
				Package () { 0x0014ffff, 0, 0, 20 },
				Package () { 0x0015ffff, 0, 0, 21 },
				Package () { 0x0016ffff, 0, 0, 22 },
				Package () { 0x0017ffff, 0, 0, 23 },
				Package () { 0x0018ffff, 0, 0, 16 },
				Package () { 0x0019ffff, 0, 0, 17 },
				Package () { 0x001affff, 0, 0, 18 },
				Package () { 0x001bffff, 0, 0, 19 },
				Package () { 0x001cffff, 0, 0, 20 },
				Package () { 0x001dffff, 0, 0, 21 },
				Package () { 0x001effff, 0, 0, 22 },
				Package () { 0x001fffff, 0, 0, 23 }
			})
		}

		/* Motherboard resources: the configuration window that MCFG announces, and our registers. */
		Device (MBRD)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_UID, 0)
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xe0000000, 0x00100000)
				IO (Decode16, 0x00f4, 0x00f4, 1, 1)
				IO (Decode16, 0x0600, 0x0600, 1, 4)
			})
		}

		Device (COM1)
		{
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, 0)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x03f8, 0x03f8, 1, 8)
				Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 4 }
			})
		}

		/* No alarm, so no interrupt. */
		Device (RTC0)
		{
			Name (_HID, EisaId ("PNP0B00"))
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x0070, 0x0070, 1, 2)
			})
		}

		Device (PVPC)
		{
			Name (_HID, "QEMU0001")
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x0505, 0x0505, 1, 1)
			})
		}

		Device (PWRB)
		{
			Name (_HID, EisaId ("PNP0C0C"))
			Name (_UID, 0)
		}

		/* Generic event device: bit 0 of the event register is the power button, bit 1 a PCI slot
		   (hotplug.asl, where there is a control socket). */
		Device (GED0)
		{
			Name (_HID, "ACPI0013")
			Name (_UID, 0)
			Name (_CRS, ResourceTemplate ()
			{
				Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 9 }
			})
			OperationRegion (EVTR, SystemIO, 0x0604, 4)
			Field (EVTR, DWordAcc, NoLock, WriteAsZeros)
			{
				ESEL, 32
			}
			Method (_EVT, 1, Serialized)
			{
				Local0 = ESEL
				If (Local0 & 1)
				{
					Notify (\_SB.PWRB, 0x80)
				}
				If (Local0 & 2)
				{
					If (CondRefOf (\_SB.PCI0.PCNT))
					{
						\_SB.PCI0.PCNT ()
					}
				}
			}
		}
	}
}
