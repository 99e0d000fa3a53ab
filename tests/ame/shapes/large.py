"""Shapes: large functions (long jumps, more than 256 constants and names)."""
# ruff: noqa: PLW2901

from __future__ import annotations

import ame
from shapes.table import Table

TABLE = Table()


@TABLE.shape
def more_constants_than_a_byte(c):
    x = 299
    with ame.atomic():
        c.enter()
        # fmt: off
        values = [
            300, 301, 302, 303, 304, 305, 306, 307, 308, 309, 310, 311,
            312, 313, 314, 315, 316, 317, 318, 319, 320, 321, 322, 323,
            324, 325, 326, 327, 328, 329, 330, 331, 332, 333, 334, 335,
            336, 337, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347,
            348, 349, 350, 351, 352, 353, 354, 355, 356, 357, 358, 359,
            360, 361, 362, 363, 364, 365, 366, 367, 368, 369, 370, 371,
            372, 373, 374, 375, 376, 377, 378, 379, 380, 381, 382, 383,
            384, 385, 386, 387, 388, 389, 390, 391, 392, 393, 394, 395,
            396, 397, 398, 399, 400, 401, 402, 403, 404, 405, 406, 407,
            408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 419,
            420, 421, 422, 423, 424, 425, 426, 427, 428, 429, 430, 431,
            432, 433, 434, 435, 436, 437, 438, 439, 440, 441, 442, 443,
            444, 445, 446, 447, 448, 449, 450, 451, 452, 453, 454, 455,
            456, 457, 458, 459, 460, 461, 462, 463, 464, 465, 466, 467,
            468, 469, 470, 471, 472, 473, 474, 475, 476, 477, 478, 479,
            480, 481, 482, 483, 484, 485, 486, 487, 488, 489, 490, 491,
            492, 493, 494, 495, 496, 497, 498, 499, 500, 501, 502, 503,
            504, 505, 506, 507, 508, 509, 510, 511, 512, 513, 514, 515,
            516, 517, 518, 519, 520, 521, 522, 523, 524, 525, 526, 527,
            528, 529, 530, 531, 532, 533, 534, 535, 536, 537, 538, 539,
            540, 541, 542, 543, 544, 545, 546, 547, 548, 549, 550, 551,
            552, 553, 554, 555, 556, 557, 558, 559, 560, 561, 562, 563,
            564, 565, 566, 567, 568, 569, 570, 571, 572, 573, 574, 575,
            576, 577, 578, 579, 580, 581, 582, 583, 584, 585, 586, 587,
            588, 589, 590, 591, 592, 593, 594, 595, 596, 597, 598, 599,
            600, 601, 602, 603, 604, 605, 606, 607, 608, 609, 610, 611,
            612, 613, 614, 615, 616, 617, 618, 619, 620, 621, 622, 623,
            624, 625, 626, 627, 628, 629, 630, 631, 632, 633, 634, 635,
            636, 637, 638, 639, 640, 641, 642, 643, 644, 645, 646, 647,
            648, 649, 650, 651, 652, 653, 654, 655, 656, 657, 658, 659,
            660, 661, 662, 663, 664, 665, 666, 667, 668, 669, 670, 671,
            672, 673, 674, 675, 676, 677, 678, 679, 680, 681, 682, 683,
            684, 685, 686, 687, 688, 689, 690, 691, 692, 693, 694, 695,
            696, 697, 698, 699, 700, 701, 702, 703, 704, 705, 706, 707,
            708, 709, 710, 711, 712, 713, 714, 715, 716, 717, 718, 719,
            720, 721, 722, 723, 724, 725, 726, 727, 728, 729, 730, 731,
            732, 733, 734, 735, 736, 737, 738, 739, 740, 741, 742, 743,
            744, 745, 746, 747, 748, 749, 750, 751, 752, 753, 754, 755,
            756, 757, 758, 759, 760, 761, 762, 763, 764, 765, 766, 767,
            768, 769, 770, 771, 772, 773, 774, 775, 776, 777, 778, 779,
        ]
        # fmt: on
        x += len(values)
        c.point()
        c.ref.value = sum(values)
        for value in values:
            if value == 700:
                x += value
                break
    c.locals({"x": x, "value": value})
    return x, len(values)


@TABLE.shape
def many_locals(c):
    x = 5
    v0 = v1 = v2 = v3 = v4 = v5 = v6 = v7 = v8 = v9 = v10 = v11 = v12 = v13 = v14 = v15 = v16 = (
        v17
    ) = v18 = v19 = 1
    v20 = v21 = v22 = v23 = v24 = v25 = v26 = v27 = v28 = v29 = v30 = v31 = v32 = v33 = v34 = (
        v35
    ) = v36 = v37 = v38 = v39 = 2
    with ame.atomic():
        c.enter()
        v0 = v3 + 1000 if x % 2 else "text 0" * 0
        v1 = v10 + 1001 if x % 3 else "text 1" * 1
        v2 = v17 + 1002 if x % 4 else "text 2" * 2
        v3 = v24 + 1003 if x % 5 else "text 3" * 0
        v4 = v31 + 1004 if x % 6 else "text 4" * 1
        v5 = v38 + 1005 if x % 7 else "text 5" * 2
        v6 = v5 + 1006 if x % 8 else "text 6" * 0
        v7 = v12 + 1007 if x % 9 else "text 7" * 1
        v8 = v19 + 1008 if x % 10 else "text 8" * 2
        v9 = v26 + 1009 if x % 11 else "text 9" * 0
        v10 = v33 + 1010 if x % 12 else "text 10" * 1
        v11 = v0 + 1011 if x % 13 else "text 11" * 2
        v12 = v7 + 1012 if x % 14 else "text 12" * 0
        v13 = v14 + 1013 if x % 15 else "text 13" * 1
        v14 = v21 + 1014 if x % 16 else "text 14" * 2
        v15 = v28 + 1015 if x % 17 else "text 15" * 0
        v16 = v35 + 1016 if x % 18 else "text 16" * 1
        v17 = v2 + 1017 if x % 19 else "text 17" * 2
        v18 = v9 + 1018 if x % 20 else "text 18" * 0
        v19 = v16 + 1019 if x % 21 else "text 19" * 1
        v20 = v23 + 1020 if x % 22 else "text 20" * 2
        v21 = v30 + 1021 if x % 23 else "text 21" * 0
        v22 = v37 + 1022 if x % 24 else "text 22" * 1
        v23 = v4 + 1023 if x % 25 else "text 23" * 2
        v24 = v11 + 1024 if x % 26 else "text 24" * 0
        v25 = v18 + 1025 if x % 27 else "text 25" * 1
        v26 = v25 + 1026 if x % 28 else "text 26" * 2
        v27 = v32 + 1027 if x % 29 else "text 27" * 0
        v28 = v39 + 1028 if x % 30 else "text 28" * 1
        v29 = v6 + 1029 if x % 31 else "text 29" * 2
        v30 = v13 + 1030 if x % 32 else "text 30" * 0
        v31 = v20 + 1031 if x % 33 else "text 31" * 1
        v32 = v27 + 1032 if x % 34 else "text 32" * 2
        v33 = v34 + 1033 if x % 35 else "text 33" * 0
        v34 = v1 + 1034 if x % 36 else "text 34" * 1
        v35 = v8 + 1035 if x % 37 else "text 35" * 2
        v36 = v15 + 1036 if x % 38 else "text 36" * 0
        v37 = v22 + 1037 if x % 39 else "text 37" * 1
        v38 = v29 + 1038 if x % 40 else "text 38" * 2
        v39 = v36 + 1039 if x % 41 else "text 39" * 0
        c.point()
        c.ref.value += x
    c.locals(locals())
    return v39


@TABLE.shape
def long_branches_in_a_loop(c):
    told = []
    for x in (0, 30, 59, 60, 1):
        with ame.atomic():
            c.enter()
            if x == 0:
                c.table[0] = x = 5000
            elif x == 1:
                c.table[1] = x = 5001
            elif x == 2:
                c.table[2] = x = 5002
            elif x == 3:
                c.table[3] = x = 5003
            elif x == 4:
                c.table[4] = x = 5004
            elif x == 5:
                c.table[5] = x = 5005
            elif x == 6:
                c.table[6] = x = 5006
            elif x == 7:
                c.table[7] = x = 5007
            elif x == 8:
                c.table[8] = x = 5008
            elif x == 9:
                c.table[9] = x = 5009
            elif x == 10:
                c.table[10] = x = 5010
            elif x == 11:
                c.table[11] = x = 5011
            elif x == 12:
                c.table[12] = x = 5012
            elif x == 13:
                c.table[13] = x = 5013
            elif x == 14:
                c.table[14] = x = 5014
            elif x == 15:
                c.table[15] = x = 5015
            elif x == 16:
                c.table[16] = x = 5016
            elif x == 17:
                c.table[17] = x = 5017
            elif x == 18:
                c.table[18] = x = 5018
            elif x == 19:
                c.table[19] = x = 5019
            elif x == 20:
                c.table[20] = x = 5020
            elif x == 21:
                c.table[21] = x = 5021
            elif x == 22:
                c.table[22] = x = 5022
            elif x == 23:
                c.table[23] = x = 5023
            elif x == 24:
                c.table[24] = x = 5024
            elif x == 25:
                c.table[25] = x = 5025
            elif x == 26:
                c.table[26] = x = 5026
            elif x == 27:
                c.table[27] = x = 5027
            elif x == 28:
                c.table[28] = x = 5028
            elif x == 29:
                c.table[29] = x = 5029
            elif x == 30:
                c.table[30] = x = 5030
            elif x == 31:
                c.table[31] = x = 5031
            elif x == 32:
                c.table[32] = x = 5032
            elif x == 33:
                c.table[33] = x = 5033
            elif x == 34:
                c.table[34] = x = 5034
            elif x == 35:
                c.table[35] = x = 5035
            elif x == 36:
                c.table[36] = x = 5036
            elif x == 37:
                c.table[37] = x = 5037
            elif x == 38:
                c.table[38] = x = 5038
            elif x == 39:
                c.table[39] = x = 5039
            elif x == 40:
                c.table[40] = x = 5040
            elif x == 41:
                c.table[41] = x = 5041
            elif x == 42:
                c.table[42] = x = 5042
            elif x == 43:
                c.table[43] = x = 5043
            elif x == 44:
                c.table[44] = x = 5044
            elif x == 45:
                c.table[45] = x = 5045
            elif x == 46:
                c.table[46] = x = 5046
            elif x == 47:
                c.table[47] = x = 5047
            elif x == 48:
                c.table[48] = x = 5048
            elif x == 49:
                c.table[49] = x = 5049
            elif x == 50:
                c.table[50] = x = 5050
            elif x == 51:
                c.table[51] = x = 5051
            elif x == 52:
                c.table[52] = x = 5052
            elif x == 53:
                c.table[53] = x = 5053
            elif x == 54:
                c.table[54] = x = 5054
            elif x == 55:
                c.table[55] = x = 5055
            elif x == 56:
                c.table[56] = x = 5056
            elif x == 57:
                c.table[57] = x = 5057
            elif x == 58:
                c.table[58] = x = 5058
            elif x == 59:
                c.table[59] = x = 5059
            else:
                c.point()
                c.ref.value += 1
                continue
            c.point()
            c.ref.value += x
            if x == 5001:
                break
        told.append(x)
    else:
        told.append("else")
    return told, x


@TABLE.shape
def deep_indentation(c):
    for a in range(2):
        if a:
            while True:
                try:
                    with ame.atomic():
                        c.enter()
                        for b in range(3):
                            if b == 1:
                                try:
                                    with ame.atomic():
                                        c.ref.value += b
                                        for d in range(4):
                                            if d == 2:
                                                c.point()
                                                raise LookupError(d)
                                except LookupError as error:
                                    c.table[a, b] = str(error)
                                    continue
                            c.ref.value += 10
                        if c.ref.value > 15:
                            break
                finally:
                    c.note("finally", c.ref.value)
    return a, b, d
